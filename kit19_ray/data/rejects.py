"""What left a build, row by row with the reason: `rejects/<task>.jsonl`, written here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa


def line(task: str, place: str, reason: str, row: Any) -> str:
    """A line of a reject file: the task, where the row stands, why it left, the row as far as it is at hand."""
    file, _, number = place.rpartition(":")
    entry = {"task": task, "file": file, "line": int(number), "reason": reason, "row": row}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def lines(task: str, tables: Iterable[pa.Table]) -> Iterator[str]:
    """The lines of tables with `place`, `dropped` and `fields`, in their order."""
    for table in tables:
        for place, reason, fields in zip(*(table[c].to_pylist() for c in ("place", "dropped", "fields")), strict=True):
            yield line(task, place, reason, json.loads(fields))
