"""The command line: one verb a stage. The last line on stdout is the output's URI; all else goes to stderr.

Exit 0 done, 2 the user's mistake (one message), 1 ours (a traceback). Stages are imported when they run, so `--help`
loads neither Ray nor torch.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal, NoReturn

import typer

from kit19_ray import __version__
from kit19_ray.config import Config
from kit19_ray.errors import EXIT_DONE, EXIT_OURS, EXIT_USER, OperateError, UserError

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
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Ray dashboard, http://host:8265; RAY_API_SERVER_ADDRESS or RAY_ADDRESS if not."),
]
RayJobOption = Annotated[bool, typer.Option("--rayjob", help="A RayJob of the kubeconfig's cluster.")]
KitRunOption = Annotated[bool, typer.Option("--kitrun", help="A KitRun of the kubeconfig's cluster.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Of the RayJob or KitRun.")]
Patience = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Give up after so long without an answer.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def _load(config: str | None, overrides: list[str] | None) -> Config:
    from kit19_ray import settings

    return settings.load(config, overrides or [])


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
def tasks(json: Json = False, config: ConfigOption = None, overrides: Overrides = None) -> None:
    """List the tasks with category, licence, templates and quota."""
    from kit19_ray import listing

    loaded = _load(config, [*(overrides or []), "root=file:///unused"])
    listing.show(loaded, as_json=json)


@app.command()
def data(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Build examples, tokens and packed shards from the original files."""
    loaded = _load(config, overrides)
    from kit19_ray import pipeline

    print(pipeline.data(loaded))


@app.command()
def train(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Fine-tune (or train from scratch) on a data prefix and export safetensors."""
    loaded = _load(config, overrides)
    from kit19_ray import pipeline

    print(pipeline.train(loaded))


@app.command()
def evaluate(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Score a model on KoBEST and on the held-out rows."""
    loaded = _load(config, overrides)
    from kit19_ray import pipeline

    print(pipeline.evaluate(loaded))


@app.command()
def serve(config: ConfigOption = None, overrides: Overrides = None) -> None:
    """Serve a model over OpenAI-compatible HTTP until Ctrl-C."""
    loaded = _load(config, overrides)
    from kit19_ray import pipeline

    pipeline.serve(loaded)


@app.command()
def operate(
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", "-n", help="Work here; may be given again. Its own namespace, or WATCH_NAMESPACES, when not."
        ),
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Work in the whole cluster.")] = False,
    metrics_port: Annotated[int | None, typer.Option(help="Port of /metrics.")] = None,
    health_port: Annotated[int | None, typer.Option(help="Port of /healthz.")] = None,
    lease_namespace: Annotated[str | None, typer.Option(help="Namespace of the Lease; its own when not given.")] = None,
    identity: Annotated[str | None, typer.Option(help="Holder of the Lease; the host's name when not given.")] = None,
) -> None:
    """Run the Kubernetes operator that carries out KitRuns, until SIGTERM."""
    from kit19_ray.operate import running

    if namespace and all_namespaces:
        raise OperateError("--namespace and --all-namespaces exclude one another")
    places = namespace or running.default_namespaces()
    running.run(places, all_namespaces, metrics_port, health_port, lease_namespace, identity)


@app.command()
def run(
    config: ConfigOption = None,
    overrides: Overrides = None,
    ask: Annotated[
        str | None, typer.Option(help="Ask the served model this, print the answer and stop the server.")
    ] = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop after the evaluation.")] = False,
) -> None:
    """Run data, train, evaluate and serve in order, each a no-op when finished."""
    loaded = _load(config, overrides)
    from kit19_ray import pipeline

    pipeline.run(loaded, ask, serving=not no_serve)


@app.command()
def submit(
    verb: Annotated[str, typer.Argument(metavar="VERB", help="data, train, evaluate, serve, or run without serve.")],
    config: ConfigOption = None,
    overrides: Overrides = None,
    address: AddressOption = None,
    name: Annotated[str | None, typer.Option(help="Begins the job's id; the config file's name if not.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A variable of this shell that the job gets; repeatable.")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Start another job even if an equal one is in flight.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and leave it.")] = False,
    patience: Patience = 600.0,
    rayjob: RayJobOption = False,
    kitrun: KitRunOption = False,
    namespace: Namespace = None,
    spec: Annotated[str | None, typer.Option(metavar="FILE", help="The rest of a KitRun's spec, YAML.")] = None,
    image: Annotated[str | None, typer.Option(help="Container image, instead of --spec's images.train.")] = None,
    json: Json = False,
) -> None:
    """Send a verb to a Ray cluster or to Kubernetes, follow it and exit with the job's status."""
    kind = _kind(rayjob, kitrun, address)
    if kind and env:
        raise OperateError("--env: pods take variables from the cluster: `env` and `envFrom` of a stage in --spec")
    if not kind and (spec or image or namespace):
        raise OperateError("--spec, --image and --namespace are for --rayjob and --kitrun")
    loaded = _load(config, overrides)
    from kit19_ray.operate import jobs

    name = name or jobs.default_name(config)
    if kind:
        job = jobs.submit_to_kube(loaded, verb, name, kind, namespace, spec, image, new)
    else:
        job = jobs.submit(loaded, verb, name, address, env or [], new)
    _end(jobs.left(job) if no_wait else jobs.follow(job, patience, _newest), json)


@app.command()
def status(
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="A job; all of them when not given.")] = None,
    address: AddressOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow it as `submit` does.")] = False,
    patience: Patience = 600.0,
    rayjob: RayJobOption = False,
    kitrun: KitRunOption = False,
    namespace: Namespace = None,
    json: Json = False,
) -> None:
    """Show the jobs of a Ray cluster, or one of them with its newest metrics."""
    from kit19_ray import listing
    from kit19_ray.operate import jobs
    from kit19_ray.operate.dashboard import Dashboard

    kind = _kind(rayjob, kitrun, address)
    if job is None:
        if follow or kind:
            raise OperateError(
                "the id of a job is needed", hint="`kit19 status` or `kubectl get rayjobs,kitruns` list them"
            )
        listing.table([jobs.row(one) for one in jobs.told(Dashboard(address).jobs)], as_json=json)
        return
    found = jobs.find(job, kind, namespace, address)
    if follow:
        _end(jobs.follow(found, patience, _newest), json)
    listing.record(jobs.describe(found, _newest), as_json=json)


@app.command()
def stop(
    job: Annotated[str, typer.Argument(metavar="ID", help="The job.")],
    address: AddressOption = None,
    rayjob: RayJobOption = False,
    kitrun: KitRunOption = False,
    namespace: Namespace = None,
) -> None:
    """Stop a job and wait until it has ended: a RayJob is deleted, a KitRun suspended."""
    from kit19_ray.operate import jobs

    print(jobs.stop(jobs.find(job, _kind(rayjob, kitrun, address), namespace, address)))


def _kind(rayjob: bool, kitrun: bool, address: str | None) -> Literal["RayJob", "KitRun"] | None:
    """What the options ask for; None means a job of a dashboard."""
    if rayjob + kitrun + (address is not None) > 1:
        raise OperateError("--address, --rayjob and --kitrun exclude one another")
    if rayjob:
        return "RayJob"
    return "KitRun" if kitrun else None


def _newest(train_uri: str) -> str | None:
    """The newest metrics below a train prefix in words; None where they cannot be read from here."""
    from kit19_ray.errors import StorageError
    from kit19_ray.train import metrics, watch

    try:
        line = metrics.last(train_uri)
    except StorageError:
        return None
    return None if line is None else f"train: step {line['step']}/{line['steps']}, {watch.describe(line)}"


def _end(outcome: Any, as_json: bool) -> NoReturn:
    """Prints how following ended, the output's URI last, and exits with the job's own code."""
    from kit19_ray.operate import jobs

    if as_json:
        import json

        print(json.dumps(jobs.result(outcome), ensure_ascii=False, indent=1))
    elif outcome.code == EXIT_DONE:
        print(outcome.uri or outcome.id)
    sys.exit(outcome.code)


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    try:
        app(standalone_mode=False)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into messages and exit codes
        _explain(error)
    sys.exit(0)


def _explain(error: Exception) -> NoReturn:
    from typer.exceptions import TyperException

    if isinstance(error, typer.Abort):
        sys.exit(130)
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
