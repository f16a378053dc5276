"""Reader rows -> records: the task's fields, a stable id, and a reason for every row that does not become one."""

from __future__ import annotations

from dataclasses import dataclass

from kit19_ray.sources.readers.base import Raw
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hex_id


@dataclass(frozen=True)
class Record:
    """One row of a source, as a task sees it.

    Attributes:
        id: hash of the task and all fields, so equal rows have equal ids wherever they stand.
        group: records of one group fall on the same side of the train/validation split.
        place: `file:line` of the source.
        fields: the task's fields by name.
    """

    id: str
    group: str
    place: str
    fields: dict[str, str]


def to_record(task: Task, file: str, raw: Raw) -> Record | str:
    """The record of a row, or the reason why there is none: `missing_<field>`, `empty_<field>`, `unknown_label`."""
    spec = task.spec
    fields: dict[str, str] = {}
    for name in spec.fields:
        value = raw.fields.get(name)
        if value is None:
            return f"missing_{name}"
        if not value and name not in spec.optional:
            return f"empty_{name}"
        fields[name] = value
    if spec.answer is not None and fields[spec.answer] not in task.labels:
        return "unknown_label"
    asked = [fields[n] for n in spec.fields if n != spec.answer]
    return Record(
        id=hex_id(task.name, *fields.values()),
        group=raw.group if raw.group is not None else hex_id(*asked),
        place=f"{file}:{raw.line}",
        fields=fields,
    )
