"""`kit19 submit`, `status` and `stop`: a job is sent, looked at, ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar

from kit19_ray.config import loading, strict_yaml
from kit19_ray.config.schema import Config
from kit19_ray.errors import EXIT_DONE, OperateError
from kit19_ray.jobs import submission
from kit19_ray.jobs.follow import Follower
from kit19_ray.jobs.job import ENDED, Gone, Job, JobOutcome, State, Unreachable
from kit19_ray.jobs.log_cursor import Lines
from kit19_ray.jobs.ray_dashboard import Dashboard, DashboardJob, Listed
from kit19_ray.operate.controller.conditions import duration
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.utils.console import say
from kit19_ray.utils.json_types import Json

if TYPE_CHECKING:
    from kit19_ray.jobs.kube_jobs import KitRunRow, RayJobRow

_STOP_SECONDS = 60.0
Kind = Literal["RayJob", "KitRun"]
T = TypeVar("T")
Newest = Callable[[str], str | None]


def default_name(config_file: str | None) -> str:
    """The name of a submission that was given none: its config file's."""
    return PurePosixPath(config_file).stem if config_file and config_file != "-" else "kit19"


def submit(config: Config, verb: str, name: str, address: str | None, env: Sequence[str], anew: bool) -> DashboardJob:
    """Sends `kit19 <verb>` to a Ray cluster; an equal submission in flight is taken over unless `anew`.

    Args:
        env: names of variables of this process that the job gets.

    Raises:
        OperateError: nothing was sent: a wrong verb, a credential in the config, an unset variable, no cluster.
    """
    made = submission.make(config, verb, name)
    values = _values(env)
    for warning in made.warnings:
        say(f"submit: {warning}")
    if values:
        names = ", ".join(values)
        say(
            f"submit: {names} go into the job's runtime_env, which everyone with access to the dashboard's API can read"
        )
    job, created = call_with_retry(lambda: Dashboard(address).submit(made, values, anew))
    say(f"submit: {job.id} was submitted" if created else f"submit: {job.id} is in flight already; following it")
    return job


def submit_to_kube(
    config: Config,
    verb: str,
    name: str,
    kind: Kind,
    namespace: str | None,
    spec: str | None,
    image: str | None,
    anew: bool,
) -> Job:
    """Sends `kit19 <verb>` as a RayJob, or the whole run as a KitRun, to the cluster of the kubeconfig.

    Args:
        spec: YAML file with the rest of a KitRun's spec.

    Raises:
        OperateError: nothing was sent.
    """
    from kit19_ray.jobs import kube_jobs

    if kind == "KitRun":
        submission.check_verb(verb, ("run",))
        if anew:
            raise OperateError("--new: a KitRun is one thing with a name; give another --name")
    made = kube_jobs.make_spec(
        config, strict_yaml.parse(loading.read(spec, "--spec", OperateError), spec, OperateError) if spec else {}, image
    )
    for warning in submission.local_paths(config):
        say(f"submit: {warning}")
    cluster, place = kube_jobs.connect(namespace)
    run = RunRef(submission.slug(name), place)
    if kind == "KitRun":
        job, created = call_with_retry(lambda: kube_jobs.apply_run(cluster, run, made)), True
    else:
        job, created = call_with_retry(lambda: kube_jobs.create_job(cluster, run, made, verb, anew))
    say(f"submit: {job.id} was submitted" if created else f"submit: {job.id} is in flight already; following it")
    return job


def find(name: str, kind: Kind | None, namespace: str | None, address: str | None) -> Job:
    """The job `name` of a dashboard, or the RayJob or KitRun of that name.

    Raises:
        OperateError: there is none.
    """
    if kind is None:
        return call_with_retry(lambda: Dashboard(address).job(name))
    from kit19_ray.jobs import kube_jobs

    cluster, place = kube_jobs.connect(namespace)
    job = kube_jobs.KubeJob(cluster, kind, place, name)
    try:
        call_with_retry(job.poll)
    except Gone:
        raise OperateError(f"{name}: no such {kind} in namespace {place}") from None
    return job


def call_with_retry(call: Callable[[], T]) -> T:
    """What `call` returns.

    Raises:
        OperateError: the cluster does not answer.
    """
    try:
        return call()
    except Unreachable as error:
        raise OperateError(f"the cluster does not answer: {error}") from error


def follow(job: Job, patience: float, newest: Newest | None) -> JobOutcome:
    """Follows the job to its end; see `Follower`."""
    follow_command, _ = job.commands()
    say(f"submit: following {job.id}; from elsewhere: {follow_command}")
    return Follower(job, patience, newest).run()


def detach(job: Job) -> JobOutcome:
    """The job is not followed."""
    follow_command, stop_command = job.commands()
    say(f"submit: follow it: {follow_command}\nsubmit: stop it:   {stop_command}")
    return JobOutcome(job.id, None, EXIT_DONE)


def stop(job: Job) -> str:
    """Stops the job and returns its status once it has ended; nothing happens to one that has.

    Raises:
        OperateError: it does not end.
    """
    if (before := call_with_retry(job.poll)).state in ENDED:
        say(f"stop: {job.id} has ended already")
        return before.state
    call_with_retry(job.stop)
    limit = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < limit:
        try:
            report = call_with_retry(job.poll)
        except Gone:
            return "STOPPED"  # a RayJob is stopped by deleting it
        if report.state in ENDED:
            return report.state
        time.sleep(0.5)
    raise OperateError(f"{job.id} was asked to stop and has not after {_STOP_SECONDS:.0f} s")


class JobRow(TypedDict):
    """A dashboard's job as `kit19 status` lists it."""

    id: str
    status: State
    exit_code: int | None
    started: str | None
    ended: str | None
    took: str | None
    command: str


def describe(job: Job, newest: Newest | None) -> Json:
    """What is known of a job: status, times, message, output, newest metrics; JSON-ready."""
    if not isinstance(job, DashboardJob):
        report = call_with_retry(job.poll)
        shown = {"id": job.id, "status": report.state, "detail": report.detail, "message": report.message}
        return {key: value for key, value in shown.items() if value}
    one: Listed = call_with_retry(job.listed)
    lines = Lines()
    lines.feed(call_with_retry(job.log))
    found: Json = {**row(one)} | {"message": one.report.message, "uri": lines.uri}
    if newest is not None and lines.trains is not None:
        found["training"] = newest(lines.trains)
    return {key: value for key, value in found.items() if value not in (None, "")}


def rows(kind: Kind | None, namespace: str | None, address: str | None) -> Sequence[JobRow | RayJobRow | KitRunRow]:
    """All jobs of a dashboard, or all of a kind in a namespace; JSON-ready."""
    if kind is None:
        return [row(one) for one in call_with_retry(Dashboard(address).jobs)]
    from kit19_ray.jobs import kube_jobs

    cluster, place = kube_jobs.connect(namespace)
    return call_with_retry(lambda: kube_jobs.rows(cluster, kind, place))


def row(one: Listed) -> JobRow:
    """A job as `kit19 status` lists it; JSON-ready."""
    return {
        "id": one.id,
        "status": one.report.state,
        "exit_code": one.report.exit_code,
        "started": _instant(one.started),
        "ended": _instant(one.ended),
        "took": duration(one.ended - one.started) if one.started and one.ended else None,
        "command": one.command,
    }


def result(outcome: JobOutcome) -> Json:
    """The outcome for `--json`."""
    return {("exit_code" if key == "code" else key): value for key, value in asdict(outcome).items()}


def _instant(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _values(names: Sequence[str], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    for name in names:
        if "=" in name:
            raise OperateError(f"--env {name.split('=')[0]}=...: give the name only; the value is this process' own")
        if name not in environ:
            raise OperateError(f"--env {name}: the variable is not set here")
    return {name: environ[name] for name in names}
