"""The verbs that run here: config, fetch, data, train, evaluate, serve, run, plan, report."""

from __future__ import annotations

from typing import Annotated

import typer

from kit19_ray.cli import extras, tasks  # noqa: F401 - `tasks` registers its verbs, before those here
from kit19_ray.cli.options import Ablation, AsJson, ConfigOption, Overrides, ablated, app, load, load_served
from kit19_ray.config import reference
from kit19_ray.errors import UserError
from kit19_ray.utils.console import show, write


@app.command("config")
def config_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print this one.")] = None,
) -> None:
    """List the configs that come with the package; with a NAME, print it: `kit19 config demo > demo.yaml`."""
    from kit19_ray.config import examples

    if name is None:
        for known in examples.names():
            write(f"{known}\t{examples.about(known)}")
        return
    write(examples.text(name), end="")


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
    loaded = load(config, [word for word in words or [] if "=" in word])
    from kit19_ray.fetch import stage

    if dry_run or json:
        write(stage.listing(loaded, names, as_json=json))
    else:
        write(stage.run(loaded, names, accepted=accept_licences, parallel=parallel))


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
    json: AsJson = False,
) -> None:
    """Build examples, tokens and packed shards from the original files."""
    if examples is not None and diff is None:
        raise UserError("--examples goes with --diff")
    if diff is not None:
        if config or overrides or preview or ablation:
            raise UserError("--diff reads two finished prefixes and takes no config, no override and no --preview")
        from kit19_ray.data.inspect import diff as comparison

        show(comparison.diff(*diff, 3 if examples is None else examples), json, comparison.show)
    elif preview is not None:
        loaded = load(config, ablated(overrides, ablation))
        from kit19_ray.data.inspect import preview as drawn

        show(drawn.preview(loaded, preview), json, drawn.show)
    elif json:
        raise UserError("--json goes with --preview or --diff; a build prints its URI, and manifest.json is there")
    else:
        loaded = load(config, ablated(overrides, ablation))
        extras.require("data", "kit19 data")
        from kit19_ray import pipeline

        write(pipeline.data(loaded))


@app.command(epilog=reference.epilog("train"))
def train(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Fine-tune (or train from scratch) on a data prefix and export safetensors."""
    loaded = load(config, overrides)
    extras.require("train", "kit19 train")
    if loaded.train.best.task:
        extras.require("evaluate", f"train.best.score={loaded.train.best.score}")
    from kit19_ray import pipeline

    write(pipeline.train(loaded))


@app.command()
def checkpoint(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The train prefix of a run under way, a path or URI.")],
    stop: Annotated[bool, typer.Option("--stop", help="Save, then end; the same `kit19 train` goes on there.")] = False,
) -> None:
    """Ask a training under way to save now, or to save and stop."""
    from kit19_ray.artifacts import run_request

    run_request.ask(run, "stop" if stop else "save")
    print(run)


@app.command()
def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished train prefix, a path or URI.")],
    destination: Annotated[str, typer.Argument(metavar="TO", help="A folder (./x), an s3:// prefix, or a hub id.")],
    adapter: Annotated[bool, typer.Option("--adapter", help="The adapter alone, not the merged model.")] = False,
    public: Annotated[bool, typer.Option("--public", help="A new repository of the hub is not private.")] = False,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Holds the hub's token; HF_TOKEN when not given.")
    ] = None,
) -> None:
    """Copy a training's export, with its card, to another store or to the hub."""
    from kit19_ray import push as pushing

    write(pushing.push(run, destination, adapter, public, token_file))


@app.command(epilog=reference.epilog("evaluate"))
def evaluate(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Score a model on KoBEST and on the held-out rows."""
    loaded = load(config, overrides)
    extras.require("evaluate", "kit19 evaluate")
    from kit19_ray import pipeline

    write(pipeline.evaluate(loaded))


@app.command(epilog=reference.epilog("serve"))
def serve(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Serve a model over OpenAI-compatible HTTP until Ctrl-C."""
    loaded = load_served(config, overrides)
    extras.require("serve", "kit19 serve")
    from kit19_ray import pipeline

    pipeline.serve(loaded)


@app.command(epilog=reference.epilog("serve"))
def generate(
    source: Annotated[str, typer.Option("--in", metavar="ROWS", help="Folder or file: .jsonl, .jsonl.gz, .parquet.")],
    out: Annotated[str, typer.Option("--out", metavar="ROWS", help="Folder of the rows with their answers.")],
    config: ConfigOption = None,
    overrides: Overrides = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of prompts, `prompt` when not given.")] = None,
    messages_column: Annotated[str | None, typer.Option(help="Column of messages, as a chat takes them.")] = None,
    answer_column: Annotated[str, typer.Option(help="Column that the answers are put into.")] = "completion",
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample among the likeliest tokens of this probability.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends an answer; may be given again.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sampling; the config's seed when not given.")] = None,
    rows_per_part: Annotated[int, typer.Option(min=1, help="Rows that are written together.")] = 256,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, say what would be done, stop.")] = False,
    json: AsJson = False,
) -> None:
    """Answer every row of a folder with a model; killed at any moment, the same command goes on."""
    if prompt_column and messages_column:
        raise UserError("--prompt-column and --messages-column exclude each other")
    if json and not dry_run:
        raise UserError("--json goes with --dry-run; a run prints its URI, and manifest.json is there")
    loaded = load_served(config, overrides)
    extras.require("serve", "kit19 generate")
    from kit19_ray import pipeline
    from kit19_ray.serve.batch import stage
    from kit19_ray.serve.batch.job import GenerateJob
    from kit19_ray.utils import console

    options = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "stop": stop or []}
    column = messages_column or prompt_column or "prompt"
    job = GenerateJob(
        column, messages_column is not None, answer_column, options, loaded.seed if seed is None else seed
    )
    model = pipeline.train_uri(loaded, loaded.serve.model)
    if dry_run:
        console.record(stage.dry_run(loaded.serve, model, source, out, job, rows_per_part), json)
    else:
        write(stage.run(loaded.serve, model, source, out, job, rows_per_part))


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
    loaded = load(config, ablated(overrides, ablation))
    extras.require("evaluate", "kit19 run")
    if not no_serve:
        extras.require("serve", "kit19 run without --no-serve")
    from kit19_ray import pipeline

    pipeline.run(loaded, ask, serving=not no_serve)


@app.command()
def plan(
    config: ConfigOption = None,
    overrides: Overrides = None,
    json: AsJson = False,
    hash_: Annotated[
        bool, typer.Option("--hash", help="Hash the source files, however large, to name the data stage's output.")
    ] = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at the Ray cluster's nodes too: do the config's processes fit?")
    ] = False,
) -> None:
    """Say what a config would do, what it needs and what is missing; nothing is kept or started."""
    loaded = load(config, overrides)
    if cluster:
        extras.require("train", "kit19 plan --cluster")
    from kit19_ray.preflight import plan, render

    found = plan.make(loaded, hash_, cluster)
    write(render.json_text(found) if json else render.text(found))
    found.require()


@app.command()
def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Train or evaluate prefixes, or roots; by default the root's."),
    ] = None,
    config: ConfigOption = None,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write report.md with its charts and report.html there.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Compare finished runs: configs, losses, scores with their errors beside the paper's."""
    from kit19_ray.config import loading
    from kit19_ray.report import page, stage

    root = loading.root(config)
    if out is None:
        found = stage.make(runs or [], root)
        write(f"{stage.record(found)}\n" if json else page.markdown(found), end="")
        return
    uri, found = stage.write(runs or [], root, out)
    write(stage.record(found) if json else uri)
