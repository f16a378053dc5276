"""One stage of a KitRun: its RayJob is created, followed, timed, tried again. Pure, a part of `plan`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from kit19_ray.operate.api.spec import Stage
from kit19_ray.operate.api.status import StageStatus
from kit19_ray.operate.controller.actions import WATCH_SECONDS, Apply, Planning
from kit19_ray.operate.controller.observation import Child, StageReport, Verdict, judge, stamp
from kit19_ray.operate.manifests import children, naming
from kit19_ray.operate.manifests.naming import BUILD_ANNOTATION


def refresh(work: Planning, stage: Stage) -> None:
    """Forgets what was known at another hash, takes up what an earlier operator left, forgives after an edit."""
    wanted = naming.stage_id(work.run, work.spec, stage)
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


def advance(work: Planning, stage: Stage, known: StageStatus) -> None:
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
    if known.waiting_since:
        known.started_at = stamp(child.created)
    known.waiting_since, known.retry_at = None, None
    verdict = judge(child, gang=bool(work.spec.queue.scheduler))
    _step(work, known, child, verdict)
    take_report(known, work.observed.reports.get(stage))
    if verdict.step in ("Starting", "Queued"):
        wanted = children.ray_job(work.run, work.spec, stage, known.attempt, {})["metadata"]["annotations"]
        if child.build != wanted[BUILD_ANNOTATION] and known.running_at is None and not known.ran_seconds:
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


def _advance_again(work: Planning, stage: Stage, child: Child) -> None:
    known: StageStatus = getattr(work.status.stages, stage)
    known.child = naming.job_name(work.run, work.spec, stage, known.attempt)
    known.reason, known.message = "Changed", f"waiting for {child.name} to go"
    work.delete(child)


def _step(work: Planning, known: StageStatus, child: Child, verdict: Verdict) -> None:
    """Where the child is, and since when. A job that its queue takes back has run for a while, and will again."""
    if known.running_at and verdict.step in ("Queued", "Starting"):
        known.ran_seconds = (known.ran_seconds or 0) + work.since(known.running_at)
        known.running_at = None
    if known.state in ("Queued", "Running") and verdict.step == "Starting":
        known.started_at = stamp(work.now)
    known.started_at = known.started_at or stamp(child.created)
    if verdict.step in ("Running", "Succeeded", "Failed"):
        known.running_at = known.running_at or stamp(work.now)
    known.state = verdict.step
    known.reason, known.message = verdict.reason or None, verdict.message or None


def _in_time(work: Planning, stage: Stage, known: StageStatus, verdict: Verdict) -> Verdict:
    """The verdict, or a failure when the stage is stuck."""
    deadlines = work.spec.deadlines
    if verdict.step == "Starting" and known.started_at and work.deadline_passed(known.started_at, deadlines.start):
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
        limit: int | None = getattr(deadlines, stage)
        left = None if limit is None else limit - (known.ran_seconds or 0)
        if known.running_at and work.deadline_passed(known.running_at, left):
            return Verdict(
                "Failed", "StageDeadline", f"{known.child} ran longer than deadlines.{stage}={limit} seconds"
            )
    return verdict


def _failed(work: Planning, known: StageStatus, child: Child, verdict: Verdict) -> None:
    retries = work.spec.retries
    known.reason, known.message = verdict.reason, verdict.message
    if _excused(known, verdict):
        known.excused_at_step = known.step
    else:
        known.failures += 1
    if not verdict.again or known.failures > retries.rebuilds:
        known.state, known.finished_at = "Failed", stamp(work.now)
        return
    wait = min(retries.max_backoff_seconds, retries.backoff_seconds * 2.0 ** max(0, known.failures - 1))
    known.state = "BackingOff"
    known.attempt += 1
    known.retry_at = stamp(work.now + timedelta(seconds=wait))
    known.started_at = known.running_at = known.waiting_since = known.ran_seconds = None
    counted = (
        f"RayJob {known.failures} of {retries.rebuilds + 1}" if known.excused_at_step != known.step else "not counted"
    )
    known.message = f"{verdict.message} ({counted}; the next at {known.retry_at})"
    work.waits.append(wait)
    work.delete(child)


_NOT_THE_JOBS_OWN = (
    "SubmissionFailed",
    "JobDeploymentStatusTransitionGracePeriodExceeded",
    "JobStatusCheckTimeoutExceeded",
)


def _excused(known: StageStatus, verdict: Verdict) -> bool:
    """Whether a failure does not count: it is not the job's own, and the run got further since the last such one."""
    return verdict.reason in _NOT_THE_JOBS_OWN and (known.step or 0) > (known.excused_at_step or 0)


def _create(work: Planning, stage: Stage, known: StageStatus, left: Sequence[str]) -> None:
    """Creates the stage's RayJob, unless something is in the way: another one, the backoff, what is missing."""
    if known.retry_at and not work.deadline_passed(known.retry_at, 0):
        known.state = "BackingOff"
        return
    refused = work.observed.refused.get(stage)
    if refused:
        known.state, known.reason, known.message = "Failed", "Refused", refused
        known.finished_at = stamp(work.now)
        return
    missing = work.observed.missing.get(stage)
    rejected = work.observed.rejected.get(stage)
    if missing or left or rejected:
        known.state = "Waiting"
        known.reason = "Missing" if missing else "Replacing" if left else "Rejected"
        going = f"waiting for {', '.join(left)} to go" + (f"; {rejected}" if rejected else "")
        known.message = missing or (going if left else rejected)
        known.waiting_since = known.waiting_since or known.started_at or stamp(work.now)
        work.waits.append(WATCH_SECONDS)
        if work.deadline_passed(known.waiting_since, work.spec.deadlines.start):
            known.state, known.finished_at = "Failed", stamp(work.now)
            return
    if missing or left:
        return
    # What was rejected is asked for again: quotas are freed, admissions changed, kinds installed.
    uris = children.known_uris(work.status)
    work.actions.append(Apply(children.ray_job(work.run, work.spec, stage, known.attempt, uris), stage))
    if rejected:
        return
    unseen = known.started_at if known.reason == "Created" and known.running_at is None else None
    known.state, known.reason, known.message = "Starting", "Created", None
    known.waiting_since = known.retry_at = None
    known.started_at, known.running_at, known.finished_at = unseen or stamp(work.now), None, None


def take_report(known: StageStatus, report: StageReport | None) -> None:
    """What the storage says of the stage, into its status; what was known stays when it says nothing."""
    if report is None:
        return
    known.uri = report.uri or known.uri
    for name, value in report.metrics.items():
        setattr(known, name, value)
    if known.state == "Succeeded":
        known.eta_seconds = None
        known.message = None if known.uri else report.error
