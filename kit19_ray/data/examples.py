"""Record x template -> example: instruction, input, output, and for a classification every output it could have been.

A task with fewer records than its quota uses records again, each time under another template. Template and phrasing
follow from hashes of the record's id, so an example never depends on its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from kit19_ray.artifacts.schemas import TEXT, ExampleRow
from kit19_ray.data.records import Record
from kit19_ray.tasks import filled_template
from kit19_ray.tasks.task import Task, Template
from kit19_ray.utils.hashing import hash64

UNLIMITED = 1 << 30  # uses of a record


class OwnTexts(TypedDict, total=False):
    """Columns of a row of a user's own data that no template fills."""

    kind: str
    instruction: str
    input: str
    output: str
    messages: str | None


@dataclass(frozen=True)
class Planned:
    """A record with the template it is shown under; `repeat` counts its earlier uses."""

    record: Record
    template: Template
    repeat: int


def templates(task: Task, record: Record, seed: int, split: str, free_uses: int = UNLIMITED) -> list[Template]:
    """The templates that a record is used with, in turn, from one its hash picks: those that fit it.

    Args:
        free_uses: of those that ask for a text of its own only so many, the first.
    """
    fitting = _fitting(task, record, split)
    first = hash64(seed, "template", record.id) % max(1, len(fitting))
    order, free = [], 0
    for template in fitting[first:] + fitting[:first]:
        free += task.is_free(template)
        if free <= free_uses or not task.is_free(template):
            order.append(template)
    return order


def num_fitting(task: Task, record: Record, split: str) -> int:
    """How many templates fit a record, however often it may be used."""
    return len(_fitting(task, record, split))


def _fitting(task: Task, record: Record, split: str) -> list[Template]:
    asked = [t for t in task.spec.templates if not (t.held_out and split == "train")]
    return [t for t in asked if t.applies(record.fields)]


def render(task: Task, planned: Planned, split: str, seed: int) -> ExampleRow:
    """The example's row, in the columns of `schemas.EXAMPLE_SCHEMA`."""
    record, template = planned.record, planned.template
    id_ = f"{record.id}-{planned.repeat}"
    made = filled_template.fill(task, template, record.fields, record.id, seed)
    row: ExampleRow = {
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
        "messages": None,
        "instruction": made.instruction,
        "input": made.input,
        "output": made.output,
        "label": made.label,
        "candidates": made.candidates,
        "answer": made.answer,
        "answer_type": made.answer_type,
    }
    return {**row, **_own(record.fields)}


def _own(fields: Mapping[str, str]) -> OwnTexts:
    """What a row of a user's own data is shown as, where no template says it (`own_datasets`)."""
    if set(fields) == {TEXT}:
        return {"kind": TEXT, "instruction": "", "input": "", "output": fields[TEXT]}
    if set(fields) != {"messages"}:
        return {}
    messages = json.loads(fields["messages"])
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    first, last = messages[1 if system else 0]["content"], messages[-1]["content"]
    instruction, text = (system, first) if system else (first, "")
    # A single exchange without a system turn is an instruction like any other.
    kept = fields["messages"] if system or len(messages) > 2 else None
    return {"instruction": instruction, "input": text, "output": last, "messages": kept}
