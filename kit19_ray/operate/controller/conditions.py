"""What a person reads first: one line of columns, the conditions, and an Event for each transition. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kit19_ray.artifacts import gate
from kit19_ray.operate.api.spec import STAGES, KitRunSpec
from kit19_ray.operate.api.status import CONDITIONS, Condition, StageStatus, Status
from kit19_ray.operate.controller.observation import stamp

_BUILT = {"data": "DataBuilt", "train": "Trained", "evaluate": "Evaluated", "serve": "Serving"}


@dataclass(frozen=True)
class Notice:
    """An Event to post."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def summarize(new: Status, old: Status, spec: KitRunSpec | None, now: datetime, unreadable: str | None = None) -> None:
    """Fills in the columns and the conditions of `new`; a condition's time is kept from `old` while it holds.

    Args:
        unreadable: why the root cannot be read; "" when it can, None when nobody tried.
    """
    stage: StageStatus | None = getattr(new.stages, new.stage) if new.stage else None
    new.progress = f"{stage.progress:.0%}" if stage and stage.progress is not None and new.stage != "serve" else None
    new.eta = duration(stage.eta_seconds) if stage and stage.eta_seconds is not None else None
    if spec is not None:
        number = gate.headline(new.scores, spec.config.evaluate.gate)
        new.score = None if number is None else f"{number:.3f}"
    serving = new.stages.serve.state == "Running"
    found = {kind: _stage_condition(kind, getattr(new.stages, name)) for name, kind in _BUILT.items()}
    found["Ready"] = Condition(
        type="Ready",
        status="True" if serving or new.phase == "Succeeded" else "False",
        reason="Serving" if serving else new.phase,
        message=None if serving else new.message,
    )
    found["StorageReadable"] = _storage(old.condition("StorageReadable"), unreadable)
    bad = new.phase in ("Failed", "GateFailed")
    found["Failed"] = Condition(
        type="Failed",
        status="True" if bad else "False",
        reason=_failure(new) if bad else new.phase,
        message=new.message if bad else None,
    )
    for kind, condition in found.items():
        before = old.condition(kind)
        kept = before.last_transition_time if before.status == condition.status else None
        condition.last_transition_time = kept or stamp(now)
        condition.observed_generation = new.observed_generation
    new.conditions = [found[kind] for kind in CONDITIONS]


def _stage_condition(kind: str, stage: StageStatus) -> Condition:
    done = stage.state == ("Running" if kind == "Serving" else "Succeeded")
    return Condition(
        type=kind, status="True" if done else "False", reason=stage.reason or stage.state, message=stage.message
    )


def _storage(before: Condition, unreadable: str | None) -> Condition:
    if unreadable is None:
        return before.model_copy()
    if unreadable:
        said = f"{unreadable}; without it there is no progress, no gate and no server: let the operator read the root"
        return Condition(type="StorageReadable", status="False", reason="Unreadable", message=said)
    return Condition(type="StorageReadable", status="True", reason="Read")


def _failure(status: Status) -> str:
    if status.phase == "GateFailed":
        return "GateFailed"
    stage: StageStatus | None = getattr(status.stages, status.stage) if status.stage else None
    return (stage.reason if stage else None) or "InvalidSpec"


def duration(seconds: float) -> str:
    """Such as 45s, 12m, 3h05m or 2d4h."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if minutes < 1:
        return f"{int(seconds)}s"
    if hours < 1:
        return f"{minutes}m"
    if hours < 24:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{hours // 24}d{hours % 24}h"


def notices(old: Status, new: Status) -> list[Notice]:
    """An Event for each stage and for the run whose state changed."""
    found = []
    for name in (*STAGES, "serve"):
        before, after = getattr(old.stages, name), getattr(new.stages, name)
        if (before.state, before.hash, before.attempt) == (after.state, after.hash, after.attempt):
            continue
        if after.state == "Waiting" and after.message is None:
            continue
        bad = after.state in ("Failed", "BackingOff")
        said = after.message or (after.uri if after.state == "Succeeded" else after.child) or ""
        found.append(Notice("Warning" if bad else "Normal", f"{name.title()}{after.state}", said))
    if new.condition("StorageReadable").status == "False" != old.condition("StorageReadable").status:
        found.append(Notice("Warning", "StorageUnreadable", new.condition("StorageReadable").message or ""))
    if new.warning and new.warning != old.warning:
        found.append(Notice("Warning", "NotFollowed", new.warning))
    if old.phase != new.phase:
        bad = new.phase in ("Failed", "GateFailed")
        found.append(Notice("Warning" if bad else "Normal", new.phase, new.message or f"{old.phase} -> {new.phase}"))
    return found
