"""Record x template -> example: instruction, input, output, and for a classification every output it could have been.

A task with fewer records than its quota uses records again, each time under another template. Template and phrasing
follow from hashes of the record's id, so an example never depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kit19_ray.data.records import Record
from kit19_ray.tasks import render as rendering
from kit19_ray.tasks.task import Task, Template
from kit19_ray.utils.hashing import hash64


@dataclass(frozen=True)
class Planned:
    """A record with the template it is shown under; `repeat` counts its earlier uses."""

    record: Record
    template: Template
    repeat: int


def plan(
    task: Task, records: Sequence[Record], quota: int, seed: int, repeat: bool, split: str = "train"
) -> list[Planned]:
    """Chooses templates for records until the quota is reached or every record has met every template.

    Args:
        records: in sampling order.
        quota: examples wanted.
        repeat: whether a record may be used again.
        split: train keeps clear of the templates that are held out.
    """
    orders = [_templates(task, record, seed, split) for record in records]
    planned: list[Planned] = []
    for turn in range(max(map(len, orders), default=0) if repeat else 1):
        for record, order in zip(records, orders, strict=True):
            if len(planned) >= quota:
                return planned
            if turn < len(order):
                planned.append(Planned(record, order[turn], turn))
    return planned


def _templates(task: Task, record: Record, seed: int, split: str) -> list[Template]:
    """The templates that fit the record, opening at one its hash picks."""
    asked = [t for t in task.spec.templates if not (t.held_out and split == "train")]
    fitting = [t for t in asked if t.applies(record.fields)]
    first = hash64(seed, "template", record.id) % max(1, len(fitting))
    return fitting[first:] + fitting[:first]


def render(task: Task, planned: Planned, split: str, seed: int) -> dict[str, Any]:
    """The example's row, in the columns of `schemas.EXAMPLE_SCHEMA`."""
    record, template = planned.record, planned.template
    id_ = f"{record.id}-{planned.repeat}"
    return {
        "id": id_,
        "task": task.name,
        "category": task.spec.category,
        "source": task.source_id,
        "source_id": record.place,
        "licence": task.source.licence.name,
        "split": split,
        "template": template.name,
        "kind": template.kind,
        "order": hash64(seed, "order", id_) >> 1,
        **asdict(rendering.render(task, template, record.fields, record.id, seed)),
    }


def rows(task: Task, planned: Sequence[Planned], split: str, seed: int) -> list[dict[str, Any]]:
    """Every example's row, by ascending `order`."""
    return sorted((render(task, p, split, seed) for p in planned), key=lambda row: (row["order"], row["id"]))
