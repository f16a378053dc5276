"""A cluster in memory for the tests of `plan`: it carries out actions, and children change as KubeRay changes them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kit19_ray.artifacts.gate import failures
from kit19_ray.operate.api.spec import STAGES, KitRunSpec, parse
from kit19_ray.operate.api.status import Status
from kit19_ray.operate.controller.actions import Action, Delete, DeleteRun, MakeKeys
from kit19_ray.operate.controller.observation import Child, Observed, StageReport
from kit19_ray.operate.controller.plan import Plan, plan
from kit19_ray.operate.manifests import serving_keys
from kit19_ray.operate.manifests.naming import (
    ATTEMPT_ANNOTATION,
    BUILD_ANNOTATION,
    HASH_ANNOTATION,
    STAGE_LABEL,
    RunRef,
)

RUN = RunRef("demo", "default", "6f1c9b1e-0000-4000-8000-000000000001")
START = datetime(2026, 1, 1, tzinfo=UTC)
GOOD, BAD = {"kobest_copa": {"acc": 0.9}}, {"kobest_copa": {"acc": 0.1}}

ROOT = {"root": "s3://bucket/runs"}
USER_ERROR = "Job entrypoint command failed with exit code 2, last available logs:\nerror: quota is 0\nraise data.quota"

# (jobDeploymentStatus, jobStatus) as KubeRay writes them.
INITIALIZING, RUNNING, COMPLETE = ("Initializing", ""), ("Running", "RUNNING"), ("Complete", "SUCCEEDED")
FAILED, SUSPENDED, WAITING = ("Failed", "FAILED"), ("Suspended", ""), ("Waiting", "PENDING")
STATES = [("", ""), INITIALIZING, WAITING, RUNNING, ("Running", "SUCCEEDED"), ("Retrying", ""), COMPLETE, FAILED]
STATES += [("Failed", "SUCCEEDED"), ("Failed", "STOPPED"), ("Complete", "FAILED"), ("ValidationFailed", ""), SUSPENDED]


def make_spec(**more: Any) -> KitRunSpec:
    tree: dict[str, Any] = {
        "config": ROOT | {"evaluate": {"gate": [{"task": "kobest_copa", "min": 0.5}]}},
        "images": {"train": "kit19:1"},
        "retries": {"rebuilds": 1, "backoffSeconds": 10},
    }
    return parse(tree | more, "demo")


@dataclass
class World:
    """The KitRun, its children and the clock."""

    spec: KitRunSpec = field(default_factory=make_spec)
    generation: int = 1
    status: Status = field(default_factory=Status)
    children: dict[tuple[str, str], Child] = field(default_factory=dict)
    now: datetime = START
    scores: dict[str, dict[str, float]] | None = None
    missing: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    unreadable: str | None = None
    warning: str | None = None
    created: list[str] = field(default_factory=list)
    gone: bool = False
    slow_deletes: bool = False
    keys: set[str] = field(default_factory=set)

    def observed(self) -> Observed:
        reports = {stage: StageReport(uri=f"s3://bucket/runs/{stage}-1") for stage in STAGES}
        reports["evaluate"] = replace(reports["evaluate"], scores=self.scores)
        reports["train"] = replace(reports["train"], metrics=self.metrics)
        return Observed(
            tuple(self.children.values()),
            reports,
            self.missing,
            rejected=self.rejected,
            unreadable=self.unreadable,
            warning=self.warning,
        )

    def look(self) -> Plan:
        """What the operator would do now; the status makes the round trip through the API server's JSON."""
        made = plan(RUN, self.generation, self.spec, self.status, self.observed(), self.now)
        made.status.model_validate(made.status.dump())
        return made

    def step(self, lost_after: int | None = None) -> Plan:
        """One reconciliation; with `lost_after` the operator is killed after that many actions."""
        made = self.look()
        self.status = Status.model_validate(made.status.dump())
        for action in made.actions[:lost_after]:
            self.carry_out(action)
        return made

    def carry_out(self, action: Action) -> None:
        if isinstance(action, DeleteRun):
            self.gone = True
        elif isinstance(action, Delete):
            key = (action.kind, action.name)
            if self.slow_deletes and key in self.children:
                self.children[key] = replace(self.children[key], deleting=True)
            else:
                self.children.pop(key, None)
        elif isinstance(action, MakeKeys):
            self.keys.add(action.manifest["metadata"]["name"])
        else:
            self.apply(action.manifest)

    def apply(self, body: dict[str, Any]) -> None:
        metadata, key = body["metadata"], (body["kind"], body["metadata"]["name"])
        if body["kind"] == "RayService":
            rules = self.spec.config.evaluate.gate
            assert self.keys or not serving_keys.secret(RUN, self.spec), "served without keys"
            assert not rules or (self.status.scores and not failures(self.status.scores, rules)), "served past the gate"
        if key in self.children and body["kind"] == "RayJob":
            raise AssertionError(f"{key[1]} is created twice")
        annotations = metadata["annotations"]
        if body["kind"] != "NetworkPolicy":
            self.created.append(key[1])
        self.children[key] = Child(
            kind=body["kind"],
            name=key[1],
            stage=metadata["labels"][STAGE_LABEL],
            hash=annotations.get(HASH_ANNOTATION, ""),
            attempt=int(annotations.get(ATTEMPT_ANNOTATION, 0)),
            build=annotations[BUILD_ANNOTATION],
            created=self.now,
        )

    def jobs(self, stage: str | None = None) -> list[Child]:
        return [c for c in self.children.values() if c.kind == "RayJob" and (stage is None or c.stage == stage)]

    def change(self, child: Child, state: tuple[str, str], message: str = "", reason: str = "") -> None:
        """KubeRay writes a RayJob's status; a terminal one never changes again."""
        current = self.children.get((child.kind, child.name))
        if current is None or current.deployment_status in ("Complete", "Failed", "ValidationFailed"):
            return
        self.children[child.kind, child.name] = replace(
            current, deployment_status=state[0], job_status=state[1], message=message, reason=reason
        )

    def stage_job(self, stage: str) -> Child:
        (job,) = self.jobs(stage)
        return job

    def service(self) -> Child | None:
        return next((c for c in self.children.values() if c.kind == "RayService"), None)

    def ready(self) -> None:
        service = self.service()
        if service is not None:
            self.children[service.kind, service.name] = replace(service, ready=True, answers=True)

    def finish_deletes(self) -> None:
        self.children = {key: child for key, child in self.children.items() if not child.deleting}

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def edit(self, **more: Any) -> None:
        self.spec, self.generation = make_spec(**more), self.generation + 1

    def run_stage(self, stage: str, state: tuple[str, str] = COMPLETE, message: str = "") -> None:
        """Reconciles, lets the stage's job run and end, reconciles."""
        self.step()  # an earlier job of the stage goes
        self.step()
        self.change(self.stage_job(stage), RUNNING)
        self.step()
        self.change(self.stage_job(stage), state, message)
        self.step()


def at_gate(scores: dict[str, Any] | None = GOOD, **more: Any) -> World:
    """A run whose three stages are done."""
    world = World(spec=make_spec(**more), scores=scores)
    for stage in STAGES:
        world.run_stage(stage)
    return world


def condition(world: World, kind: str) -> tuple[str, str, str]:
    """status, reason and message of a condition."""
    found = world.status.condition(kind)
    return found.status, found.reason, found.message or ""
