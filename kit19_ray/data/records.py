"""Reader rows -> records: the task's fields, a stable id, and a reason for every row that does not become one.

From here on a row is a row of an Arrow table. `dropped` is empty while it keeps going, and says why it left where it
did: filters only ever fill this column, so rows in = rows out at every step, and one writer (`rejects`) has them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hex_id

BATCH_ROWS, BATCH_BYTES = 4096, 8 << 20  # of a table: whichever is reached first ends it
ROWS = pa.schema(
    [
        ("task", pa.string()),
        ("part", pa.int32()),  # number of the file part within the task; with `nth` the order of the files
        ("table", pa.int32()),  # number of the table within the part
        ("nth", pa.int64()),  # row of the part
        ("place", pa.string()),  # file:line
        ("id", pa.string()),  # null where the row is no record
        ("group", pa.string()),
        ("fields", pa.string()),  # JSON: the record's fields, or as much of the row as is at hand
        ("dropped", pa.string()),  # null: keeps going
    ]
)


_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for every row


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


def to_record(task: Task, file: str, raw: SourceRow) -> Record | str:
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


def tables(task: Task, part: int, file: str, rows: Iterable[SourceRow | RejectedRow]) -> Iterator[pa.Table]:
    """The rows of a file part as tables of `ROWS`; a table is bounded by the bytes of its text, not by its rows alone.

    Args:
        part: number of the part within the task.
        file: the file's path below the source's folder.
    """
    made: list[tuple[str | int | None, ...]] = []
    held = number = 0
    for nth, row in enumerate(rows):
        found = to_record(task, file, row) if isinstance(row, SourceRow) else row.reason
        if isinstance(found, Record):
            id_, group, place, dropped = found.id, found.group, found.place, None
            fields = _json(found.fields)
        else:
            id_, group, place, dropped = None, None, f"{file}:{row.line}", found
            fields = _json(row.fields if isinstance(row, SourceRow) else row.row)
        made.append((task.name, part, number, nth, place, id_, group, fields, dropped))
        held += 3 * len(fields)  # of UTF-8 at most, for Korean
        if held >= BATCH_BYTES or len(made) >= BATCH_ROWS:
            yield _table(made)
            made, held, number = [], 0, number + 1
    if made:
        yield _table(made)


def _table(rows: Sequence[tuple[str | int | None, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, ROWS, strict=True)], ROWS)
