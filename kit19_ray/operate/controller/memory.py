"""What the operator remembers of a KitRun between reconciliations."""

from __future__ import annotations

from dataclasses import dataclass, field

from kit19_ray.operate.api.spec import Stage
from kit19_ray.operate.controller.observation import Child, StageReport

FRESH_SECONDS = 300.0
"""Age at which a list of children is made again."""


@dataclass
class RunMemory:
    """What is remembered of a run between reconciliations; all of it may be lost."""

    reports: dict[Stage, StageReport] = field(default_factory=dict)
    read_at: dict[Stage, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    unreadable: str | None = None
    generation: int = 0
    children: dict[tuple[str, str], Child] = field(default_factory=dict)
    news: set[tuple[str, str]] = field(default_factory=set)  # children heard of since the last list was asked for
    listed_at: float = -FRESH_SECONDS
    keys_gone: bool = False
    other: str | None = None  # the release that carries it out in this one's place
