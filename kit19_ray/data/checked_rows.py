"""The operators of the stream over a table of rows: check it, and write it into buckets of what its rows ask.

They know nothing of Ray, so that a preview runs them over the head of a source as a build does over all of it.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kit19_ray.data import shuffle
from kit19_ray.data.checks import CHECKED, Checker
from kit19_ray.data.filters import index_store
from kit19_ray.data.source_parts import FilePart
from kit19_ray.io import storage
from kit19_ray.sources.readers import usable
from kit19_ray.tasks.task import Task


@dataclass(frozen=True)
class Reading:
    """One task's part of the stream; `uri` is where its buckets go, `num_buckets` how many there are.

    The rows that are dropped have one more bucket, the last.
    """

    checker: Checker
    parts: Sequence[FilePart]
    uri: str
    num_buckets: int

    @property
    def task(self) -> Task:
        return self.checker.task


@dataclass
class Receipt:
    """What the stream wrote of one task: its files in the order of the rows, and counts."""

    files: list[str] = field(default_factory=list)
    rows: int = 0
    records: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    records_of: Counter[int] = field(default_factory=Counter)
    """Records by file part."""
    dropped_of: dict[int, Counter[str]] = field(default_factory=dict)
    """Reasons by file part."""

    def add(self, written: Mapping[str, Any]) -> dict[str, int]:
        """Counts what `write` wrote of one table, a row of its; why rows of that table were dropped."""
        dropped: dict[str, int] = json.loads(written["dropped"])
        self.files.append(written["name"])
        self.rows += written["rows"]
        self.records += written["records"]
        self.dropped.update(dropped)
        self.records_of[written["part"]] += written["records"]
        self.dropped_of.setdefault(written["part"], Counter()).update(dropped)
        return dropped


def check(block: pa.Table, checkers: Mapping[str, Checker], index: str | None) -> pa.Table:
    """A block of rows, checked."""
    checked = []
    for rows in _per_table(block):
        made = checkers[rows["task"][0].as_py()].check(rows, index_store.load(index) if index else None)
        checked.append(made.append_column("task", rows["task"]).append_column("table", rows["table"]))
    return pa.concat_tables(checked)


def write(block: pa.Table, targets: Mapping[str, tuple[str, int]]) -> pa.Table:
    """Writes a block's rows into their buckets; a row of receipt for each table.

    Args:
        targets: prefix and number of buckets by task.
    """
    receipts = []
    for rows in _per_table(block):
        task, part, number = (rows[name][0].as_py() for name in ("task", "part", "table"))
        uri, num = targets[task]
        dropped = pc.is_valid(rows["dropped"]).to_numpy(zero_copy_only=False)
        keys = rows["key"].fill_null(0).to_numpy()
        buckets = np.where(dropped, num, shuffle.bucket_of(keys, num))
        name = f"rows-{part:05d}-{number:08d}.arrow"
        shuffle.write(storage.join(uri, name), rows.drop_columns(["task", "table"]), buckets, num + 1)
        reasons = Counter(rows["dropped"].filter(pa.array(dropped)).to_pylist())
        made = pc.sum(pc.is_valid(rows["id"])).as_py()
        size = pc.sum(pc.binary_length(rows["fields"])).as_py()  # near enough to the bytes read, for the time left
        counts = {"rows": len(rows), "records": made, "bytes": size, "dropped": json.dumps(reasons)}
        receipts.append({"task": task, "part": part, "name": name, **counts})
    return pa.Table.from_pylist(receipts)


def _per_table(block: pa.Table) -> Iterator[pa.Table]:
    """A block as the tables the reader made: Ray may put several into one, and a file's rows must not hang on that."""
    start = np.stack([block["part"].to_numpy(), block["table"].to_numpy()])
    edges = np.flatnonzero(np.r_[True, (start[:, 1:] != start[:, :-1]).any(axis=0), True])
    for low, high in itertools.pairwise(edges):
        yield block.slice(low, high - low)


def close(reading: Reading, receipt: Receipt) -> None:
    """Puts a task's files into the order of its rows, when all of them are written.

    Raises:
        SourceError: not one row of a file is a record of the task.
    """
    receipt.files.sort()
    # Of a file in many parts no reader sees that none of them has a usable row, nor any reader what the task asks.
    parts: dict[str, list[int]] = {}
    for number, part in enumerate(reading.parts):
        parts.setdefault(part.file.path, []).append(number)
    for path, numbers in parts.items():
        reasons = sum((receipt.dropped_of.get(n, Counter()) for n in numbers), Counter[str]())
        if reasons and not any(receipt.records_of[n] for n in numbers):
            place, row = _example(reading, receipt, numbers, usable.commonest(reasons))
            raise usable.unusable(f"{path} (task {reading.task.name})", reasons, int(place.rpartition(":")[2]), row)


def _example(reading: Reading, receipt: Receipt, parts: Sequence[int], reason: str) -> tuple[str, str]:
    """Place and text of the first row of these parts that left for `reason`."""
    numbers = set(parts)
    for name in receipt.files:
        if int(name.split("-")[1]) in numbers:
            rows = shuffle.read([storage.join(reading.uri, name)], reading.num_buckets, CHECKED)
            rows = rows.filter(pc.equal(rows["dropped"], reason)).slice(0, 1)
            if len(rows):
                row = json.loads(rows["fields"][0].as_py())
                text = row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)
                return rows["place"][0].as_py(), text
    return ":0", ""
