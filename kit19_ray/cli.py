"""The command line: one verb a stage. The last line on stdout is the output's URI; all else goes to stderr.

Exit 0 done, 2 the user's mistake (one message), 1 ours (a traceback). Stages are imported when they run, so `--help`
loads neither Ray nor torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from kit19_ray import __version__, reference
from kit19_ray.config import Config
from kit19_ray.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_OURS, EXIT_USER, UserError

app = typer.Typer(
    name="kit19",
    help="Build KIT-19, fine-tune on it, measure it and serve it, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigOption = Annotated[
    str | None, typer.Option("--config", "-c", metavar="FILE", help="YAML file, local or a file:// or s3:// URI.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Overrides, such as train.epochs=1.")
]
Ablation = Annotated[
    str | None,
    typer.Option(
        metavar="with-test", help="Train on test splits too and do not decontaminate, to see what a leak is worth."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def _load(config: str | None, overrides: list[str] | None, needs_root: bool = True) -> Config:
    from kit19_ray import settings

    return settings.load(config, overrides or [], needs_root=needs_root)


def _show(found: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """What was found, on stdout: as JSON, or as `show` prints it for a reader."""
    if as_json:
        import json

        print(json.dumps(found, ensure_ascii=False, indent=1))
    else:
        show(found)


def _ablated(overrides: list[str] | None, ablation: str | None) -> list[str]:
    return [*(overrides or []), *([f"data.ablation={ablation}"] if ablation else [])]


def _version(asked: bool) -> None:
    if asked:
        print(f"kit19-ray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version


@app.command()
def tasks(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[show NAME] [KEY=VALUE...]", help="One task, and overrides.")
    ] = None,
    json: Json = False,
    config: ConfigOption = None,
) -> None:
    """List the tasks with category, licence, templates and quota; `show NAME` tells all of one, with examples."""
    match words or []:
        case ["show", name, *overrides] if "=" not in name:
            from kit19_ray.data import describe

            _show(describe.describe(_load(config, overrides, needs_root=False), name), json, describe.show)
        case ["show", *_]:
            raise UserError("kit19 tasks show NAME: the name of a task is missing; `kit19 tasks` lists them")
        case overrides:
            from kit19_ray.data import listing

            _show(listing.rows(_load(config, overrides, needs_root=False)), json, listing.show)


@app.command()
def fetch(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE|SOURCE/FILE|KEY=VALUE]...", help="What to fetch; overrides. Default: all."),
    ] = None,
    config: ConfigOption = None,
    accept_licences: Annotated[bool, typer.Option("--accept-licences", help="Accept them without a question.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and what is there, and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The list as JSON; implies --dry-run.")] = False,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Downloads at once.")] = 8,
) -> None:
    """Fetch the original files, checked by size and SHA-256; an interrupted fetch goes on where it stopped."""
    names = [word for word in words or [] if "=" not in word]
    loaded = _load(config, [word for word in words or [] if "=" in word])
    from kit19_ray.fetch import stage

    if dry_run or json:
        print(stage.listing(loaded, names, as_json=json))
    else:
        print(stage.run(loaded, names, accepted=accept_licences, parallel=parallel))


@app.command(epilog=reference.epilog("data"))
def data(
    config: ConfigOption = None,
    overrides: Overrides = None,
    preview: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Print N rows as a build would render them; build nothing.")
    ] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Compare two finished data prefixes; build nothing.")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Rows of each kind that --diff shows; 3 when not given.")
    ] = None,
    ablation: Ablation = None,
    json: Json = False,
) -> None:
    """Build examples, tokens and packed shards from the original files."""
    if examples is not None and diff is None:
        raise UserError("--examples goes with --diff")
    if diff is not None:
        if config or overrides or preview or ablation:
            raise UserError("--diff reads two finished prefixes and takes no config, no override and no --preview")
        from kit19_ray.data import diff as comparison

        _show(comparison.diff(*diff, 3 if examples is None else examples), json, comparison.show)
    elif preview is not None:
        loaded = _load(config, _ablated(overrides, ablation))
        from kit19_ray.data import preview as drawn

        _show(drawn.preview(loaded, preview), json, drawn.show)
    elif json:
        raise UserError("--json goes with --preview or --diff; a build prints its URI, and manifest.json is there")
    else:
        loaded = _load(config, _ablated(overrides, ablation))
        from kit19_ray.data import stage

        print(stage.run(loaded))


@app.command(epilog=reference.epilog("train"))
def train(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Fine-tune (or train from scratch) on a data prefix and export safetensors."""
    loaded = _load(config, overrides)
    from kit19_ray import pipeline

    print(pipeline.train(loaded))


@app.command(epilog=reference.epilog("evaluate"))
def evaluate(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Score a model on KoBEST and on the held-out rows."""
    loaded = _load(config, overrides)
    from kit19_ray import pipeline

    print(pipeline.evaluate(loaded))


@app.command(epilog=reference.epilog("serve"))
def serve(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Serve a model over OpenAI-compatible HTTP until Ctrl-C."""
    loaded = _load(config, overrides)
    from kit19_ray import pipeline

    pipeline.serve(loaded)


@app.command()
def run(
    config: ConfigOption = None,
    overrides: Overrides = None,
    ask: Annotated[
        str | None, typer.Option(help="Ask the served model this, print the answer and stop the server.")
    ] = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop after the evaluation.")] = False,
    ablation: Ablation = None,
) -> None:
    """Run data, train, evaluate and serve in order, each a no-op when finished."""
    loaded = _load(config, _ablated(overrides, ablation))
    from kit19_ray import pipeline

    pipeline.run(loaded, ask, serving=not no_serve)


@app.command()
def plan(
    config: ConfigOption = None,
    overrides: Overrides = None,
    json: Json = False,
    hash_: Annotated[
        bool, typer.Option("--hash", help="Hash the source files, however large, to name the data stage's output.")
    ] = False,
) -> None:
    """Say what a config would do, what it needs and what is missing; nothing is written or started."""
    loaded = _load(config, overrides)
    from kit19_ray.plan import preflight, show

    found = preflight.make(loaded, hashing=hash_)
    print(show.json_text(found) if json else show.text(found))
    found.require()


@app.command()
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Train or evaluate prefixes, or roots; by default the root's."),
    ] = None,
    config: ConfigOption = None,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write report.md with its charts there; a path or URI.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare finished runs: configs, losses, scores with their errors beside the paper's."""
    from kit19_ray import settings
    from kit19_ray.report import page, stage

    root = settings.root(config)
    if out is None:
        found = stage.make(runs or [], root)
        print(f"{stage.record(found)}\n" if json else page.markdown(found), end="")
        return
    uri, found = stage.write(runs or [], root, out)
    print(stage.record(found) if json else uri)


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    try:
        code = app(standalone_mode=False)  # typer turns Ctrl-C into this code
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into messages and exit codes
        _explain(error)
    if code == EXIT_INTERRUPTED:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
    sys.exit(code or EXIT_DONE)


def _explain(error: Exception) -> NoReturn:
    from typer.exceptions import TyperException

    if isinstance(error, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    if isinstance(error, TyperException):
        print(f"error: {error.format_message()}", file=sys.stderr)
        sys.exit(EXIT_USER)
    mine = user_error(error)
    if mine is not None:
        print(f"error: {mine}", file=sys.stderr)
        sys.exit(EXIT_USER)
    import traceback

    traceback.print_exception(error)
    print("error: this is a fault of kit19-ray, not of yours; please report it with the lines above", file=sys.stderr)
    sys.exit(EXIT_OURS)


def user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake behind an error, through what Ray wraps round an error of a worker."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        current = queue.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        wrapped = getattr(current, "cause", None)  # ray.exceptions.RayTaskError
        if isinstance(current, UserError) and not isinstance(wrapped, UserError):
            return current
        queue += [wrapped if isinstance(wrapped, BaseException) else None, current.__cause__, current.__context__]
        queue += list(getattr(current, "worker_failures", {}).values())  # ray.train.WorkerGroupError
    return None
