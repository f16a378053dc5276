"""Records -> examples, a run of records at a time; where an example stands in its task is a matter of counting.

    record                 #0   #1   #2          templates that fit: 2, 1, 2
    turn 0                  0    1    2          rank of the example, by turn and record
    turn 1                  3    -    4          a quota of 4 takes the ranks below 4

`count` tells how many examples a run of records has in each turn, so every run knows the ranks of its own (`turns`).
Examples lie in files by ranges of `order`, which is what shards are ranges of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kit19_ray.artifacts.schemas import EXAMPLE_SCHEMA
from kit19_ray.data import balance, examples, shuffle, tables
from kit19_ray.data.balance import Balance, Shares
from kit19_ray.data.filters.near_duplicates import NearDuplicates
from kit19_ray.data.records import Record
from kit19_ray.io import storage
from kit19_ray.tasks.task import Task

FREE_USES = "free_uses"  # the reason of examples, not rows, that `data.free_uses` left out
PART = 8192  # examples of a file, about
ROW_GROUP = 512  # rows: a shard reads of each task's file little more than it needs
RANKED = pa.schema([*EXAMPLE_SCHEMA, ("rank", pa.int32()), ("repeat", pa.int32())])


@dataclass(frozen=True)
class Rendering:
    """One task's examples in the making.

    Attributes:
        out: prefix of the examples.
        seed: what templates are chosen by.
        repeat: whether a record of the training split may be used again.
        removed: the records that near duplicates made leave.
        free_uses: examples of a record with a text of its own for an answer, at most.
        balance: how the classes of the training split share it.
        records: the source's records of each class, by label.
    """

    task: Task
    out: str
    seed: int
    repeat: bool
    removed: NearDuplicates
    free_uses: int = examples.UNLIMITED
    balance: Balance = balance.SOURCE
    records: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunShare:
    """What one run of records makes of a split: `starts[t]` is the place of its first example in turn t, in its class.

    `shares` ranks the places of class `cls` among those of the others. `parts` files hold the split's examples;
    examples of a rank of `quota` or more are not made.
    """

    split: str
    run: int
    uri: str
    starts: tuple[int, ...]
    shares: Shares
    cls: int
    quota: int
    parts: int


def part_path(split: str, number: int) -> str:
    """Where a part of a task's examples or tokens is, below their prefix."""
    return f"{split}-{number:05d}.parquet"


def order_range(number: int, parts: int) -> tuple[int, int]:
    """The values of `order` that a part holds: from the first to before the second."""
    low, high = (-((-n << 32) // parts) for n in (number, number + 1))
    return low << 31, high << 31


def num_parts(num_examples: int) -> int:
    """Files for a split's examples; an empty split has an empty file."""
    return max(1, -(-num_examples // PART))


@dataclass(frozen=True)
class RunCount:
    """Records of a run that stay, the examples they have in each turn, and those that `free_uses` costs them."""

    records: int
    turns: list[int]
    withheld: int


def count(rendering: Rendering, split: str, uri: str) -> RunCount:
    """What a run of records can give."""
    task, repeated = rendering.task, rendering.repeat and split == "train"
    fitting: list[int] = []
    withheld = 0
    for record in _records(rendering, uri):
        fitting.append(len(examples.templates(task, record, rendering.seed, split, rendering.free_uses)))
        withheld += examples.num_fitting(task, record, split) - fitting[-1] if repeated else 0
    turns = max(fitting, default=0) if repeated else 1
    return RunCount(len(fitting), [sum(number > turn for number in fitting) for turn in range(turns)], withheld)


def turns(counts: Sequence[Sequence[int]]) -> tuple[int, list[tuple[int, ...]]]:
    """All examples of a class, and for each run of records the place of its first example in each turn.

    Args:
        counts: examples of each run in each turn, the runs by rank.
    """
    most = max(map(len, counts), default=0)
    starts: list[list[int]] = [[] for _ in counts]
    total = 0
    for turn in range(most):
        for run, found in enumerate(counts):
            starts[run].append(total)
            total += found[turn] if turn < len(found) else 0
    return total, [tuple(found) for found in starts]


def render(rendering: Rendering, share: RunShare) -> tuple[str, str | None]:
    """Writes a run's examples, sorted into the split's parts.

    Returns:
        The path of what it wrote, and its SHA-256 where that is a part already because there is no other run.
    """
    task, seed = rendering.task, rendering.seed
    rows = []
    for rank, planned in _planned(rendering, share):
        row = examples.render(task, planned, share.split, seed)
        rows.append(row | {"rank": rank, "repeat": planned.repeat, "num_tokens": 0})
    table = pa.Table.from_pylist(rows, RANKED)
    if share.parts == 1 and share.run < 0:  # one run, one part: there is nothing to shuffle
        return _write(rendering.out, share.split, 0, table)
    orders = table["order"].to_numpy().astype(np.uint64) << np.uint64(1)
    path = f"parts/{share.split}-{share.run:05d}.arrow"
    shuffle.write(storage.join(rendering.out, path), table, shuffle.bucket_of(orders, share.parts), share.parts)
    return path, None


def gather(rendering: Rendering, split: str, number: int, paths: Sequence[str]) -> tuple[str, str]:
    """Writes a part of a split's examples out of what each run had for it; its path and SHA-256."""
    table = shuffle.read([storage.join(rendering.out, path) for path in paths], number, RANKED)
    return _write(rendering.out, split, number, table)


def read(uri: str, columns: list[str] | None = None, quota: int | None = None) -> Iterator[pa.RecordBatch]:
    """Batches of a part of a task's examples, by ascending `order`; only the rows of a rank below `quota`."""
    with storage.open_input(uri) as file:
        wanted = columns if columns is None or quota is None else [*dict.fromkeys([*columns, "rank"])]
        for batch in pq.ParquetFile(file).iter_batches(batch_size=2048, columns=wanted):
            yield batch if quota is None else batch.filter(pc.less(batch["rank"], quota))


def _planned(rendering: Rendering, share: RunShare) -> Iterator[tuple[int, examples.Planned]]:
    task, seed = rendering.task, rendering.seed
    records = [
        (record, examples.templates(task, record, seed, share.split, rendering.free_uses))
        for record in _records(rendering, share.uri)
    ]
    size = share.shares.sizes[share.cls]
    for turn, place in enumerate(share.starts):
        for record, templates in records:
            if place >= size or (rank := share.shares.rank(share.cls, place)) >= share.quota:
                break
            if turn < len(templates):
                yield rank, examples.Planned(record, templates[turn], turn)
                place += 1


def _records(rendering: Rendering, uri: str) -> Iterator[Record]:
    """The records of a run that stay."""
    with storage.open_input(uri) as file:
        table = pq.read_table(file, columns=["id", "place", "fields"])
    left = pc.is_in(table["id"], rendering.removed.table["id"].combine_chunks())
    for row in table.filter(pc.invert(left)).to_pylist():
        yield Record(row["id"], "", row["place"], json.loads(row["fields"]))


def _write(out: str, split: str, number: int, table: pa.Table) -> tuple[str, str]:
    table = table.sort_by([("order", "ascending"), ("id", "ascending")])
    path = part_path(split, number)
    return path, tables.write(storage.join(out, path), table, ROW_GROUP)
