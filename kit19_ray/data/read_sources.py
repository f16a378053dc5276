"""The stream of a build: file parts -> rows -> checked rows -> buckets of what they ask, on Ray Data.

    SourceParts        a read task a file part, tables of some thousand rows     (Datasource)
      -> check         schema and evaluation items have had their say            (map over tables)
      -> write         a file a table, a bucket a range of `key`                 (map over tables; receipts come out)

Reading and checking are operators of their own, so a file that cannot be cut still keeps every CPU at work, and Ray
Data holds the reader back when the checks are behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from kit19_ray.data import checked_rows, records, source_parts
from kit19_ray.data.checked_rows import Reading, Receipt
from kit19_ray.data.progress import StreamProgress
from kit19_ray.data.ray_tasks import MIB, asked, named_failures
from kit19_ray.data.source_parts import FilePart
from kit19_ray.tasks.task import Task

_WHOLE_BLOCKS: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
_READ, _CHECK = 320 * MIB, 320 * MIB  # memory of a read task and of a check


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
    checks = {"checkers": checkers, "index": index}
    targets = {r.task.name: (r.uri, r.num_buckets) for r in readings}
    source = SourceParts(readings)
    # A table is far below the block size, so Ray never cuts one.
    ray.data.DataContext.get_current().target_max_block_size = 4 * records.BATCH_BYTES
    rows = (
        ray.data.read_datasource(source, override_num_blocks=len(source), memory=asked(_READ))
        .map_batches(checked_rows.check, fn_kwargs=checks, memory=asked(_CHECK), **_WHOLE_BLOCKS)
        .map_batches(checked_rows.write, fn_kwargs={"targets": targets}, memory=asked(_CHECK), **_WHOLE_BLOCKS)
        .iter_rows()
    )
    found = {r.task.name: Receipt() for r in readings}
    with named_failures("read and check"):
        for row in rows:
            dropped = found[row["task"]].add(row)
            progress.add(row["rows"], row["bytes"], dropped)
    for reading in readings:
        checked_rows.close(reading, found[reading.task.name])
    return found
