"""The verbs of a cluster: submit, status, stop, and the operator's own."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal, NoReturn

import typer

from kit19_ray.cli import extras
from kit19_ray.cli.options import AsJson, ConfigOption, Overrides, app, load
from kit19_ray.errors import EXIT_DONE, EXIT_OURS, OperateError
from kit19_ray.utils import console

AddressOption = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Ray dashboard, http://host:8265; RAY_API_SERVER_ADDRESS or RAY_ADDRESS if not."),
]
RayJobOption = Annotated[bool, typer.Option("--rayjob", help="A RayJob of the kubeconfig's cluster.")]
KitRunOption = Annotated[bool, typer.Option("--kitrun", help="A KitRun of the kubeconfig's cluster.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Of the RayJob or KitRun.")]
Patience = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Give up after so long without an answer.")]


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
    json: AsJson = False,
) -> None:
    """Send a verb to a Ray cluster or to Kubernetes, follow it and exit with the job's status."""
    kind = _kind(rayjob, kitrun, address)
    if kind and env:
        raise OperateError("--env: pods take variables from the cluster: `env` and `envFrom` of a stage in --spec")
    if not kind and (spec or image or namespace):
        raise OperateError("--spec, --image and --namespace are for --rayjob and --kitrun")
    loaded = load(config, overrides)
    extras.require("submit", "kit19 submit")
    from kit19_ray.jobs import commands

    name = name or commands.default_name(config)
    if kind:
        job = commands.submit_to_kube(loaded, verb, name, kind, namespace, spec, image, new)
    else:
        job = commands.submit(loaded, verb, name, address, env or [], new)
    _end(commands.detach(job) if no_wait else commands.follow(job, patience, _newest), json)


@app.command()
def drill(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[DRILL]...", help="Drills by name, or `all`; the usual ones if not.")
    ] = None,
    config: ConfigOption = None,
    local: Annotated[
        bool, typer.Option("--local", help="On a cluster of its own on this machine, whose nodes may be lost too.")
    ] = False,
    names_only: Annotated[bool, typer.Option("--list", help="Print the drills and stop.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what the runs wrote below the root.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The table as docs/explanation/drills.md has it.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Kill workers of a small training on your cluster, and see what it costs: a table; exit 1 if one ends badly."""
    from kit19_ray.drill.drills import DRILLS

    if names_only:
        console.table(
            [{"drill": d.name, "what is done": d.done, "where": "--local" if d.local else ""} for d in DRILLS]
        )
        return
    loaded = load(config, [])
    extras.require("train", "kit19 drill")
    from kit19_ray.drill import stage, table

    found = stage.run(loaded, names or [], local, keep)
    if json:
        console.write_json(found)
    else:
        console.write(table.markdown(found) if markdown else table.text(found))
    if any(outcome["wrong"] for outcome in found):
        raise typer.Exit(EXIT_OURS)


@app.command()
def status(
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="A job; all of them when not given.")] = None,
    address: AddressOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow it as `submit` does.")] = False,
    patience: Patience = 600.0,
    rayjob: RayJobOption = False,
    kitrun: KitRunOption = False,
    namespace: Namespace = None,
    json: AsJson = False,
) -> None:
    """Show the jobs of a Ray cluster, the RayJobs or KitRuns of a namespace, or one with its newest metrics."""
    extras.require("submit", "kit19 status")
    from kit19_ray.jobs import commands

    kind = _kind(rayjob, kitrun, address)
    if job is None:
        if follow:
            raise OperateError("--follow: the id of a job is needed", hint="without --follow they are listed")
        console.table(commands.rows(kind, namespace, address), as_json=json)
        return
    found = commands.find(job, kind, namespace, address)
    if follow:
        _end(commands.follow(found, patience, _newest), json)
    console.record(commands.describe(found, _newest), as_json=json)


@app.command()
def stop(
    job: Annotated[str, typer.Argument(metavar="ID", help="The job.")],
    address: AddressOption = None,
    rayjob: RayJobOption = False,
    kitrun: KitRunOption = False,
    namespace: Namespace = None,
) -> None:
    """Stop a job and wait until it has ended: a RayJob is deleted, a KitRun suspended."""
    extras.require("submit", "kit19 stop")
    from kit19_ray.jobs import commands

    console.write(commands.stop(commands.find(job, _kind(rayjob, kitrun, address), namespace, address)))


def _kind(rayjob: bool, kitrun: bool, address: str | None) -> Literal["RayJob", "KitRun"] | None:
    """What the options ask for; None means a job of a dashboard."""
    if rayjob + kitrun + (address is not None) > 1:
        raise OperateError("--address, --rayjob and --kitrun exclude one another")
    if rayjob:
        return "RayJob"
    return "KitRun" if kitrun else None


def _newest(train_uri: str) -> str | None:
    """The newest metrics below a train prefix in words; None where they cannot be read from here."""
    from kit19_ray.artifacts import metrics_log
    from kit19_ray.errors import StorageError
    from kit19_ray.train import progress

    try:
        line = metrics_log.last(train_uri)
    except StorageError:
        return None
    return None if line is None else f"train: step {line['step']}/{line['steps']}, {progress.describe(line)}"


def _end(outcome: Any, as_json: bool) -> NoReturn:
    """Prints how following ended, the output's URI last, and exits with the job's own code."""
    from kit19_ray.jobs import commands

    if as_json:
        console.write_json(commands.result(outcome))
    elif outcome.code == EXIT_DONE:
        console.write(outcome.uri or outcome.id)
    sys.exit(outcome.code)


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
    health_port: Annotated[int | None, typer.Option(help="Port of /healthz and /readyz.")] = None,
    lease_namespace: Annotated[str | None, typer.Option(help="Namespace of the Lease; its own when not given.")] = None,
    lease_name: Annotated[
        str, typer.Option(help="Name of the Lease; operators that share it work one at a time.")
    ] = "kit19-operator",
    identity: Annotated[str | None, typer.Option(help="Holder of the Lease; the host's name when not given.")] = None,
) -> None:
    """Run the Kubernetes operator that carries out KitRuns, until SIGTERM."""
    extras.require("operate", "kit19 operate")
    from kit19_ray.operate.controller import main

    if namespace and all_namespaces:
        raise OperateError("--namespace and --all-namespaces exclude one another")
    places = namespace or main.default_namespaces()
    main.run(places, all_namespaces, metrics_port, health_port, lease_namespace, identity, lease_name)
