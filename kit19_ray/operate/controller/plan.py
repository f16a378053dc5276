"""`plan(run, spec, status, observed, now)`: what to do next about a KitRun and what to say of it. Pure.

It may be called at any time, any number of times, with what is seen then; it holds no other memory than the status.
The status is written before the actions are carried out, so that a crash between the two loses actions, never
knowledge; the next call asks for them again.

    a stage    is done when its RayJob succeeded at the hash of its config slice; another hash does it again
    one child  a stage's RayJob is created only when no other RayJob of that stage is left, not even a dying one
    the gate   is judged on scores that were read; without them nothing is served
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kit19_ray.artifacts import gate
from kit19_ray.operate.api.spec import STAGES, KitRunSpec
from kit19_ray.operate.api.status import FINISHED, Phase, StageStatus, Status
from kit19_ray.operate.controller import plan_job, plan_network, plan_service
from kit19_ray.operate.controller.actions import WATCH_SECONDS, Action, DeleteRun, Planning
from kit19_ray.operate.controller.conditions import summarize
from kit19_ray.operate.controller.identity import identify, remember
from kit19_ray.operate.controller.observation import Observed, stamp
from kit19_ray.operate.manifests.naming import RunRef

SCORES_SECONDS = 300
"""How long the gate waits for scores that cannot be read."""
_PHASES: dict[str, Phase] = {"data": "Data", "train": "Training", "evaluate": "Evaluating", "serve": "Deploying"}


@dataclass(frozen=True)
class Plan:
    """What to do, what to write to the status, and when to look again at the latest.

    Attributes:
        requeue_after: seconds; None waits for an event.
    """

    actions: list[Action]
    status: Status
    requeue_after: float | None


def plan(run: RunRef, generation: int, spec: KitRunSpec, status: Status, observed: Observed, now: datetime) -> Plan:
    """The next step of a run. Neither argument is changed."""
    run = identify(run, spec, status, generation)
    work = Planning(run, spec, status.model_copy(deep=True), observed, now, generation != status.observed_generation)
    new = work.status
    new.observed_generation = generation
    new.stage, new.message, new.warning = None, None, observed.warning
    for stage in STAGES:
        plan_job.refresh(work, stage)
    if spec.suspend:
        new.phase = _suspend(work)
    else:
        new.phase = _forward(work)
        plan_network.protect(work)
    for said in observed.rejected.values():  # whatever the API server does not take, or does not let go
        if said not in (new.message or ""):
            new.message = f"{new.message}; {said}" if new.message else said
    if new.phase in FINISHED:
        new.finished_at = new.finished_at or stamp(now)
        service = work.one("RayService")
        served = service is not None and service.answers  # the model before this one
        if not served and work.deadline_passed(new.finished_at, spec.ttl_seconds_after_finished):
            work.actions.append(DeleteRun())
    else:
        new.finished_at = None
    remember(new, spec)
    summarize(new, status, spec, now, observed.unreadable)
    return Plan(work.actions, new, min(work.waits, default=None))


def invalid(generation: int, status: Status, message: str, now: datetime) -> Plan:
    """The plan for a spec that cannot be read: nothing is begun, what runs goes on, the message says what to mend."""
    new = status.model_copy(deep=True)
    new.observed_generation, new.phase, new.stage, new.message = generation, "Failed", None, message
    new.finished_at = new.finished_at or stamp(now)
    summarize(new, status, None, now)
    return Plan([], new, None)


def _suspend(work: Planning) -> Phase:
    for stage in STAGES:
        known: StageStatus = getattr(work.status.stages, stage)
        if known.state == "Succeeded":
            continue
        for child in work.jobs(stage):
            work.delete(child)
        setattr(work.status.stages, stage, StageStatus(hash=known.hash, attempt=known.attempt, message="suspended"))
    plan_service.stop(work)
    work.status.message = "suspended: every pod is freed; set spec.suspend to false to go on"
    return "Suspended"


def _forward(work: Planning) -> Phase:
    """Goes on with the first stage that is not done; the phase says which, or how it all ended."""
    for stage in STAGES:
        known: StageStatus = getattr(work.status.stages, stage)
        if stage in work.spec.skip:
            for child in work.jobs(stage):
                work.delete(child)
            known.state, known.reason, known.message = "Succeeded", "Skipped", None
            continue
        if known.state != "Succeeded":
            plan_job.advance(work, stage, known)
        if known.state == "Succeeded":
            plan_job.take_report(known, work.observed.reports.get(stage))
            continue
        work.status.stage = stage
        work.status.message = known.message
        if known.state == "Failed":
            return "Failed"
        first = stage == next(s for s in STAGES if s not in work.spec.skip)
        return "Pending" if first and known.state in ("Waiting", "Queued") else _PHASES[stage]
    return _gate(work)


def _gate(work: Planning) -> Phase:
    """All stages are done: serve, or say why not."""
    status, spec = work.status, work.spec
    rules = spec.config.evaluate.gate
    report = work.observed.reports.get("evaluate")
    if report and report.scores:
        status.scores = {task: dict(metrics) for task, metrics in report.scores.items()}
    if not status.scores and "evaluate" not in spec.skip:
        ended = status.stages.evaluate.finished_at or stamp(work.now)
        reading = not work.deadline_passed(ended, SCORES_SECONDS)
        if reading:
            work.waits.append(WATCH_SECONDS)
        said = (report and report.error) or "no scores were found below the root"
        if rules and reading:
            status.stage, status.message = "evaluate", f"waiting for the scores: {said}"
            return "Evaluating"
        if rules:
            plan_service.stop(work, only_this=True)
            status.message = f"the gate cannot be judged: {said}; let the operator read the root"
            return "GateFailed"
    failures = gate.failures(status.scores, rules)
    if failures:
        plan_service.stop(work, only_this=True)
        status.message = "; ".join(failures)
        if work.one("RayService") and not plan_service.serves_this(work):
            status.message += "; the model before this one is served on"
        return "GateFailed"
    if not spec.serve.enabled:
        plan_service.stop(work)
        return "Succeeded"
    return plan_service.serve(work)
