"""`plan(run, spec, status, observed, now)`: what to do next about a KitRun and what to say of it. Pure.

It may be called at any time, any number of times, with what is seen then; it holds no other memory than the status.
The status is written before the actions are carried out, so that a crash between the two loses actions, never
knowledge; the next call asks for them again.

    a stage    is done when its RayJob succeeded at the hash of its config slice; another hash does it again
    one child  a stage's RayJob is created only when no other RayJob of that stage is left, not even a dying one
    the gate   is judged on scores that were read; without them nothing is served
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kit19_ray import gate
from kit19_ray.operate import children, naming
from kit19_ray.operate.naming import BUILD_ANNOTATION, Run
from kit19_ray.operate.observe import Child, Observed, Report, Verdict, instant, judge, stamp
from kit19_ray.operate.spec import STAGES, KitRunSpec, Stage
from kit19_ray.operate.state import FINISHED, Phase, StageStatus, Status
from kit19_ray.operate.summary import summarize

WATCH_SECONDS = 10.0
"""Between two looks at a running stage's metrics, and at what is being waited for without a watch."""
SCORES_SECONDS = 300
"""How long the gate waits for scores that cannot be read."""
_PHASES: dict[str, Phase] = {"data": "Data", "train": "Training", "evaluate": "Evaluating", "serve": "Deploying"}


@dataclass(frozen=True)
class Apply:
    """Server-side apply of an object."""

    manifest: dict[str, Any]
    stage: str


@dataclass(frozen=True)
class Delete:
    """Deletion of a child."""

    kind: str
    name: str


@dataclass(frozen=True)
class DeleteRun:
    """Deletion of the KitRun itself, its time being over."""


Action = Apply | Delete | DeleteRun


@dataclass(frozen=True)
class Plan:
    """What to do, what to write to the status, and when to look again at the latest.

    Attributes:
        after: seconds; None waits for an event.
    """

    actions: list[Action]
    status: Status
    after: float | None


@dataclass
class _Work:
    """One call of `plan`."""

    run: Run
    spec: KitRunSpec
    status: Status
    observed: Observed
    now: datetime
    edited: bool
    actions: list[Action] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def jobs(self, stage: str) -> list[Child]:
        return [c for c in self.observed.children if c.kind == "RayJob" and c.stage == stage]

    def one(self, kind: str) -> Child | None:
        return next((c for c in self.observed.children if c.kind == kind), None)

    def delete(self, child: Child) -> None:
        if child.deleting:
            return
        self.actions.append(Delete(child.kind, child.name))
        if child.kind == "RayJob":
            self.actions.append(Delete("ConfigMap", child.name))

    def since(self, text: str) -> float:
        return (self.now - instant(text)).total_seconds()

    def over(self, text: str, seconds: float | None) -> bool:
        """Whether `seconds` have passed since `text`; asks for a look when they will have."""
        if seconds is None:
            return False
        left = seconds - self.since(text)
        if left > 0:
            self.waits.append(left)
        return left <= 0


def plan(run: Run, generation: int, spec: KitRunSpec, status: Status, observed: Observed, now: datetime) -> Plan:
    """The next step of a run. Neither argument is changed."""
    work = _Work(run, spec, status.model_copy(deep=True), observed, now, generation != status.observed_generation)
    new = work.status
    new.observed_generation = generation
    new.stage, new.message = None, None
    for stage in STAGES:
        _refresh(work, stage)
    if spec.suspend:
        new.phase = _suspend(work)
    else:
        new.phase = _forward(work)
    if new.phase in FINISHED:
        new.finished_at = new.finished_at or stamp(now)
        if work.over(new.finished_at, spec.ttl_seconds_after_finished):
            work.actions.append(DeleteRun())
    else:
        new.finished_at = None
    summarize(new, status, spec, now)
    return Plan(work.actions, new, min(work.waits, default=None))


def invalid(generation: int, status: Status, message: str, now: datetime) -> Plan:
    """The plan for a spec that cannot be read: nothing is begun, what runs goes on, the message says what to mend."""
    new = status.model_copy(deep=True)
    new.observed_generation, new.phase, new.stage, new.message = generation, "Failed", None, message
    new.finished_at = new.finished_at or stamp(now)
    summarize(new, status, None, now)
    return Plan([], new, None)


def _refresh(work: _Work, stage: Stage) -> None:
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


def _suspend(work: _Work) -> Phase:
    for stage in STAGES:
        known: StageStatus = getattr(work.status.stages, stage)
        if known.state == "Succeeded":
            continue
        for child in work.jobs(stage):
            work.delete(child)
        setattr(work.status.stages, stage, StageStatus(hash=known.hash, attempt=known.attempt, message="suspended"))
    _stop_serving(work)
    work.status.message = "suspended: every pod is freed; set spec.suspend to false to go on"
    return "Suspended"


def _forward(work: _Work) -> Phase:
    """Goes on with the first stage that is not done; the phase says which, or how it all ended."""
    for stage in STAGES:
        known: StageStatus = getattr(work.status.stages, stage)
        if stage in work.spec.skip:
            for child in work.jobs(stage):
                work.delete(child)
            known.state, known.reason, known.message = "Succeeded", "Skipped", None
            continue
        if known.state != "Succeeded":
            _advance(work, stage, known)
        if known.state == "Succeeded":
            _report(known, work.observed.reports.get(stage))
            continue
        work.status.stage = stage
        work.status.message = known.message
        if known.state == "Failed":
            return "Failed"
        first = stage == next(s for s in STAGES if s not in work.spec.skip)
        return "Pending" if first and known.state in ("Waiting", "Queued") else _PHASES[stage]
    return _gate(work)


def _advance(work: _Work, stage: Stage, known: StageStatus) -> None:
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
    _report(known, work.observed.reports.get(stage))
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


def _advance_again(work: _Work, stage: Stage, child: Child) -> None:
    known: StageStatus = getattr(work.status.stages, stage)
    known.child = naming.job_name(work.run, work.spec, stage, known.attempt)
    known.reason, known.message = "Changed", f"waiting for {child.name} to go"
    work.delete(child)


def _step(work: _Work, known: StageStatus, child: Child, verdict: Verdict) -> None:
    """Where the child is, and since when."""
    if known.state == "Queued" and verdict.step == "Starting":
        known.started_at = stamp(work.now)
    known.started_at = known.started_at or stamp(child.created)
    if verdict.step in ("Running", "Succeeded", "Failed"):
        known.running_at = known.running_at or stamp(work.now)
    known.state = verdict.step
    known.reason, known.message = verdict.reason or None, verdict.message or None


def _in_time(work: _Work, stage: Stage, known: StageStatus, verdict: Verdict) -> Verdict:
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


def _failed(work: _Work, known: StageStatus, child: Child, verdict: Verdict) -> None:
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


def _create(work: _Work, stage: Stage, known: StageStatus, left: Sequence[str]) -> None:
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


def _report(known: StageStatus, report: Report | None) -> None:
    """What the storage says of the stage, into its status; what was known stays when it says nothing."""
    if report is None:
        return
    known.uri = report.uri or known.uri
    for name, value in report.metrics.items():
        setattr(known, name, value)
    if known.state == "Succeeded":
        known.eta_seconds = None
        known.message = None if known.uri else report.error


def _gate(work: _Work) -> Phase:
    """All stages are done: serve, or say why not."""
    status, spec = work.status, work.spec
    rules = spec.config.evaluate.gate
    report = work.observed.reports.get("evaluate")
    if report and report.scores:
        status.scores = {task: dict(metrics) for task, metrics in report.scores.items()}
    if not status.scores and "evaluate" not in spec.skip:
        ended = status.stages.evaluate.finished_at or stamp(work.now)
        reading = not work.over(ended, SCORES_SECONDS)
        if reading:
            work.waits.append(WATCH_SECONDS)
        said = (report and report.error) or "no scores were found below the root"
        if rules and reading:
            status.stage, status.message = "evaluate", f"waiting for the scores: {said}"
            return "Evaluating"
        if rules:
            _stop_serving(work, only_this=True)
            status.message = f"the gate cannot be judged: {said}; let the operator read the root"
            return "GateFailed"
    failures = gate.failures(status.scores, rules)
    if failures:
        _stop_serving(work, only_this=True)
        status.message = "; ".join(failures)
        if work.one("RayService") and not _serves_this(work):
            status.message += "; the model before this one is served on"
        return "GateFailed"
    if not spec.serve.enabled:
        _stop_serving(work)
        return "Succeeded"
    return _serve(work)


def _serve(work: _Work) -> Phase:
    status, spec, known = work.status, work.spec, work.status.stages.serve
    status.stage = "serve"
    if "serve" in work.observed.refused:
        known.state, known.reason, known.message = "Failed", "Refused", work.observed.refused["serve"]
        status.message = known.message
        return "Failed"
    wanted = children.ray_service(work.run, spec, children.known_uris(status))
    build = wanted["metadata"]["annotations"][BUILD_ANNOTATION]
    service, entry = work.one("RayService"), children.ingress(work.run, spec)
    known.child, known.hash = wanted["metadata"]["name"], status.stages.evaluate.hash
    if entry is None and (old := work.one("Ingress")):
        work.delete(old)
    if service is None or service.deleting or (service.build, service.hash) != (build, known.hash):
        missing = _not_servable(work, service)
        known.reason, known.message = ("Missing", missing) if missing else ("Applied", None)
        known.state = "Waiting" if missing else "Starting"
        known.started_at = stamp(work.now) if not missing else known.started_at or stamp(work.now)
        if not missing:
            work.actions.append(Apply(wanted, "serve"))
        else:
            work.waits.append(WATCH_SECONDS)
    elif service.ready:
        known.state, known.reason, known.message = "Running", "Ready", None
        known.running_at = known.running_at or stamp(work.now)
    else:
        if known.state == "Running" or known.started_at is None:
            known.started_at = stamp(work.now)
        known.state, known.reason, known.message = "Starting", "NotReady", service.message or "the server is starting"
    status.message = known.message
    if entry is not None and not _is_there(work.one("Ingress"), entry):
        work.actions.append(Apply(entry, "serve"))
    if known.state == "Running":
        status.endpoint = children.endpoint(work.run, spec)
        return "Serving"
    known.running_at = None
    if known.started_at and work.over(known.started_at, spec.deadlines.serve):
        known.state, known.reason = "Failed", "ServeDeadline"
        said = known.message or "KubeRay says nothing"
        known.message = f"{known.child} did not answer within {spec.deadlines.serve} seconds: {said}"
        status.message = known.message
        return "Failed"
    return "Deploying"


def _not_servable(work: _Work, service: Child | None) -> str | None:
    """What the server has to wait for, or None."""
    if service is not None and service.deleting:
        return f"waiting for {service.name} to go"
    if not work.spec.config.serve.model and not work.status.stages.train.uri:
        report = work.observed.reports.get("train")
        said = (report and report.error) or "the train stage left no pointer"
        return f"the model's URI is not known: {said}; let the operator read the root"
    return work.observed.missing.get("serve")


def _is_there(found: Child | None, wanted: dict[str, Any]) -> bool:
    return found is not None and found.build == wanted["metadata"]["annotations"][BUILD_ANNOTATION]


def _serves_this(work: _Work) -> bool:
    """Whether the server has the model of this very evaluation, not one that passed the gate before it."""
    service = work.one("RayService")
    return service is not None and service.hash == work.status.stages.evaluate.hash


def _stop_serving(work: _Work, only_this: bool = False) -> None:
    """Takes the server away; with `only_this` only when it serves the model that was just judged."""
    if only_this and work.one("RayService") and not _serves_this(work):
        return
    for kind in ("RayService", "Ingress"):
        if child := work.one(kind):
            work.delete(child)
    work.status.stages.serve = StageStatus()
    work.status.endpoint = None
