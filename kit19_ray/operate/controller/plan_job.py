"""One stage of a KitRun: its RayJob is created, followed, timed, tried again. Pure, a part of `plan`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from kit19_ray.operate.api.spec import Stage
from kit19_ray.operate.api.status import StageStatus
from kit19_ray.operate.controller.actions import WATCH_SECONDS, Apply, Work
from kit19_ray.operate.controller.observation import Child, Report, Verdict, judge, stamp
from kit19_ray.operate.manifests import children, naming
from kit19_ray.operate.manifests.naming import BUILD_ANNOTATION


def refresh(work: Work, stage: Stage) -> None:
    """Forgets what was known at another hash, takes up what an earlier operator left, forgives after an edit."""
    wanted = naming.stage_hash(work.spec, stage)
    known: StageStatus = getattr(work.status.stages, stage)
    if known.hash != wanted:
        known = StageStatus(hash=wanted)
        setattr(work.status.stages, stage, known)
        if stage == "evaluate":
            work.status.scores = {}
        found = [child.attempt for child in work.jobs(stage) if child.hash == wanted]
        known.attempt = max(found, default=0)
    elif known.reason == "Skipped" and stage not in work.spec.skip:
        setattr(work.status.stages, stage, StageStatus(hash=wanted))
    elif known.state in ("Failed", "BackingOff") and work.edited:
        setattr(work.status.stages, stage, StageStatus(hash=wanted, attempt=known.attempt + 1))
    for child in work.jobs(stage):
        if child.name != naming.job_name(work.run, work.spec, stage, getattr(work.status.stages, stage).attempt):
            work.delete(child)


def advance(work: Work, stage: Stage, known: StageStatus) -> None:
    """One step of a stage that is not done."""
    if known.state == "Failed":
        return
    name = naming.job_name(work.run, work.spec, stage, known.attempt)
    known.child = name
    present = work.jobs(stage)
    child = next((c for c in present if c.name == name), None)
    if child is None or child.deleting:
        _create(work, stage, known, [c.name for c in present])
        return
    known.waiting_since, known.retry_at = None, None
    verdict = judge(child)
    _step(work, known, child, verdict)
    report(known, work.observed.reports.get(stage))
    if verdict.step in ("Starting", "Queued"):
        wanted = children.ray_job(work.run, work.spec, stage, known.attempt)["metadata"]["annotations"]
        if child.build != wanted[BUILD_ANNOTATION] and known.running_at is None:
            # It never ran, and is no longer what the spec asks for: a mended image, other nodes.
            setattr(work.status.stages, stage, StageStatus(hash=known.hash, attempt=known.attempt + 1))
            _advance_again(work, stage, child)
            return
    verdict = _in_time(work, stage, known, verdict)
    if verdict.step == "Failed":
        _failed(work, known, child, verdict)
    elif verdict.step == "Succeeded":
        known.finished_at = stamp(work.now)
        known.progress = 1.0


def _advance_again(work: Work, stage: Stage, child: Child) -> None:
    known: StageStatus = getattr(work.status.stages, stage)
    known.child = naming.job_name(work.run, work.spec, stage, known.attempt)
    known.reason, known.message = "Changed", f"waiting for {child.name} to go"
    work.delete(child)


def _step(work: Work, known: StageStatus, child: Child, verdict: Verdict) -> None:
    """Where the child is, and since when."""
    if known.state == "Queued" and verdict.step == "Starting":
        known.started_at = stamp(work.now)
    known.started_at = known.started_at or stamp(child.created)
    if verdict.step in ("Running", "Succeeded", "Failed"):
        known.running_at = known.running_at or stamp(work.now)
    known.state = verdict.step
    known.reason, known.message = verdict.reason or None, verdict.message or None


def _in_time(work: Work, stage: Stage, known: StageStatus, verdict: Verdict) -> Verdict:
    """The verdict, or a failure when the stage is stuck."""
    deadlines = work.spec.deadlines
    if verdict.step == "Starting" and known.started_at and work.over(known.started_at, deadlines.start):
        said = f": {verdict.message}" if verdict.message else ""
        hint = (
            "is KubeRay's operator running in this cluster?"
            if verdict.reason == "New"
            else "see `kubectl describe` of its pods: image, nodes, quota"
        )
        text = f"{known.child} did not run within {deadlines.start} seconds ({verdict.reason}){said}; {hint}"
        return Verdict("Failed", "StartDeadline", text)
    if verdict.step == "Running":
        work.waits.append(WATCH_SECONDS)
        limit = getattr(deadlines, stage)
        if known.running_at and work.over(known.running_at, limit):
            return Verdict(
                "Failed", "StageDeadline", f"{known.child} ran longer than deadlines.{stage}={limit} seconds"
            )
    return verdict


def _failed(work: Work, known: StageStatus, child: Child, verdict: Verdict) -> None:
    retries = work.spec.retries
    known.failures += 1
    known.reason, known.message = verdict.reason, verdict.message
    if not verdict.again or known.failures > retries.rebuilds:
        known.state, known.finished_at = "Failed", stamp(work.now)
        return
    wait = min(retries.max_backoff_seconds, retries.backoff_seconds * 2.0 ** (known.failures - 1))
    known.state = "BackingOff"
    known.attempt += 1
    known.retry_at = stamp(work.now + timedelta(seconds=wait))
    known.started_at = known.running_at = known.waiting_since = None
    known.message = (
        f"{verdict.message} (RayJob {known.failures} of {retries.rebuilds + 1}; the next at {known.retry_at})"
    )
    work.waits.append(wait)
    work.delete(child)


def _create(work: Work, stage: Stage, known: StageStatus, left: Sequence[str]) -> None:
    """Creates the stage's RayJob, unless something is in the way: another one, the backoff, what is missing."""
    if known.retry_at and not work.over(known.retry_at, 0):
        known.state = "BackingOff"
        return
    refused = work.observed.refused.get(stage)
    if refused:
        known.state, known.reason, known.message = "Failed", "Refused", refused
        known.finished_at = stamp(work.now)
        return
    missing = work.observed.missing.get(stage)
    if missing or left:
        known.state = "Waiting"
        known.reason = "Missing" if missing else "Replacing"
        known.message = missing or f"waiting for {', '.join(left)} to go"
        known.waiting_since = known.waiting_since or stamp(work.now)
        work.waits.append(WATCH_SECONDS)
        if work.over(known.waiting_since, work.spec.deadlines.start):
            known.state, known.finished_at = "Failed", stamp(work.now)
        return
    uris = children.known_uris(work.status)
    work.actions.append(Apply(children.config_map(work.run, work.spec, stage, known.attempt, uris), stage))
    work.actions.append(Apply(children.ray_job(work.run, work.spec, stage, known.attempt), stage))
    known.state, known.reason, known.message = "Starting", "Created", None
    known.waiting_since = known.retry_at = None
    known.started_at, known.running_at, known.finished_at = stamp(work.now), None, None


def report(known: StageStatus, report: Report | None) -> None:
    """What the storage says of the stage, into its status; what was known stays when it says nothing."""
    if report is None:
        return
    known.uri = report.uri or known.uri
    for name, value in report.metrics.items():
        setattr(known, name, value)
    if known.state == "Succeeded":
        known.eta_seconds = None
        known.message = None if known.uri else report.error
