"""The stream of a build: file parts -> rows -> checked rows -> buckets of what they ask, on Ray Data.

    SourceParts        a read task a file part, tables of some thousand rows     (Datasource)
      -> check         schema and evaluation items have had their say            (map over tables)
      -> write         a file a table, a bucket a range of `key`                 (map over tables; receipts come out)

Reading and checking are operators of their own, so a file that cannot be cut still keeps every CPU at work, and Ray
Data holds the reader back when the checks are behind.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from kit19_ray.data import records, shuffle, source_parts
from kit19_ray.data.checks import CHECKED, Checker
from kit19_ray.data.filters import index_store
from kit19_ray.data.progress import StreamProgress
from kit19_ray.data.ray_tasks import MIB, asked, named_failures
from kit19_ray.data.source_parts import FilePart
from kit19_ray.io import storage
from kit19_ray.sources.readers import usable
from kit19_ray.tasks.task import Task

_WHOLE_BLOCKS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
_READ, _CHECK = 192 * MIB, 320 * MIB  # memory of a read task and of a check


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


class SourceParts(Datasource):
    """File parts as a Ray Data source, a read task each."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray is untyped
        self._parts = [(r.task, number, part) for r in readings for number, part in enumerate(r.parts)]
        # The largest first, so that none starts when the other CPUs are done.
        self._parts.sort(key=lambda p: (p[2].start - p[2].end, p[0].name, p[1]))

    def __len__(self) -> int:
        return len(self._parts)

    def estimate_inmemory_data_size(self) -> int:
        return sum(part.end - part.start for _, _, part in self._parts)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        return [
            ReadTask(
                partial(_tables, task, number, part),
                BlockMetadata(num_rows=None, size_bytes=part.end - part.start, exec_stats=None, input_files=None),
                schema=records.ROWS,
            )
            for task, number, part in self._parts
        ]


def _tables(task: Task, number: int, part: FilePart) -> Iterator[pa.Table]:
    yield from records.tables(task, number, part.file.path, source_parts.read(task.source, part))


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


def read_and_check(readings: Sequence[Reading], index: str | None, progress: StreamProgress) -> dict[str, Receipt]:
    """Runs the stream over the files of several tasks.

    Args:
        index: prefix of the index of evaluation items; None lets all pass.
        progress: told of each file as it comes.

    Raises:
        SourceError: a file cannot be read, or not one of its rows is a record of its task.
    """
    import ray

    checkers = {r.task.name: r.checker for r in readings}
    targets = {r.task.name: (r.uri, r.num_buckets) for r in readings}
    source = SourceParts(readings)
    # A table is far below the block size, so Ray never cuts one.
    ray.data.DataContext.get_current().target_max_block_size = 4 * records.BATCH_BYTES
    rows = (
        ray.data.read_datasource(source, override_num_blocks=len(source), memory=asked(_READ))
        .map_batches(check, fn_kwargs={"checkers": checkers, "index": index}, memory=asked(_CHECK), **_WHOLE_BLOCKS)
        .map_batches(write, fn_kwargs={"targets": targets}, memory=asked(_CHECK), **_WHOLE_BLOCKS)
        .iter_rows()
    )
    found = {r.task.name: Receipt() for r in readings}
    with named_failures("read and check"):
        for row in rows:
            receipt = found[row["task"]]
            receipt.files.append(row["name"])
            receipt.rows += row["rows"]
            receipt.records += row["records"]
            dropped = json.loads(row["dropped"])
            receipt.dropped.update(dropped)
            receipt.records_of[row["part"]] += row["records"]
            receipt.dropped_of.setdefault(row["part"], Counter()).update(dropped)
            progress.add(row["rows"], row["bytes"], dropped)
    for reading in readings:
        found[reading.task.name].files.sort()
        _require_usable(reading, found[reading.task.name])
    return found


def _require_usable(reading: Reading, receipt: Receipt) -> None:
    """Of a file in many parts no reader sees that none of them has a usable row, nor any reader what the task asks."""
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
