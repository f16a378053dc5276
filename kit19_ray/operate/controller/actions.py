"""One call of `plan`: what is known, what shall be done, when to look again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from kit19_ray.operate.api.spec import KitRunSpec
from kit19_ray.operate.api.status import Status
from kit19_ray.operate.controller.observation import Child, Observed, instant
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.utils.json_types import Json

WATCH_SECONDS = 10.0
"""Between two looks at a running stage's metrics, and at what is being waited for without a watch."""


@dataclass(frozen=True)
class Apply:
    """Server-side apply of an object."""

    manifest: Json
    stage: str


@dataclass(frozen=True)
class MakeKeys:
    """Creation of a Secret of API keys, unless one of its name is there; what is in it is made up then."""

    manifest: Json
    stage: str


@dataclass(frozen=True)
class Delete:
    """Deletion of a child."""

    kind: str
    name: str
    stage: str = field(default="", compare=False)


@dataclass(frozen=True)
class DeleteRun:
    """Deletion of the KitRun itself, its time being over."""


Action = Apply | MakeKeys | Delete | DeleteRun


@dataclass
class Planning:
    """One call of `plan`."""

    run: RunRef
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
        self.actions.append(Delete(child.kind, child.name, child.stage))

    def since(self, text: str) -> float:
        return (self.now - instant(text)).total_seconds()

    def deadline_passed(self, text: str, seconds: float | None) -> bool:
        """Whether `seconds` have passed since `text`; asks for a look when they will have."""
        if seconds is None:
            return False
        left = seconds - self.since(text)
        if left > 0:
            self.waits.append(left)
        return left <= 0
