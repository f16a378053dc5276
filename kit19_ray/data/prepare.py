"""From pools to examples, task by task; a prefix is used again while what it depends on is the same.

    pool  --near duplicates of all tasks leave-->  examples-<hash>/{train,validation}.parquet     by rank

`rank` is the row's place in its task: a quota of q takes the rows of rank below q, so another quota takes other rows of
the same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.schemas import EXAMPLE_SCHEMA
from kit19_ray.data import examples as example_rows
from kit19_ray.data import pool
from kit19_ray.data.filters import minhash
from kit19_ray.data.records import Record
from kit19_ray.io import storage
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hash64

Row = dict[str, Any]
SPLITS = ("train", "validation")
NEAR, ACROSS, EXACT_ACROSS = "near_duplicate", "near_duplicate_across_tasks", "exact_duplicate_across_tasks"
_BATCH = 2048  # examples read at once
ROW_GROUP = 512  # rows: a shard reads of each task's file little more than it needs
_RANKED = pa.schema([*EXAMPLE_SCHEMA, ("rank", pa.int32()), ("repeat", pa.int32())])


@dataclass(frozen=True)
class ExamplesJob:
    """One task's pool -> examples; `removed` are the ids of records that near duplicates made leave."""

    task: Task
    pool: str
    out: str
    seed: int
    quota: int
    validation: int
    repeat: bool
    removed: frozenset[str]


@dataclass(frozen=True)
class Removed:
    """Records of one task that left because others are near: id -> reason and id of the one that stayed."""

    reasons: Mapping[str, tuple[str, str]]

    def digest(self) -> str:
        """What tells one such set from another."""
        return manifest.digest(sorted(self.reasons))


def candidates(pools: Mapping[str, str], tasks: Mapping[str, Task]) -> tuple[minhash.Candidates, list[Row]]:
    """The records of all pools as arrays, and of each its task, id and hash of its letters.

    Validation records stand before training records, so that it is the training row that leaves.
    """
    tables = {name: pool.read(uri) for name, uri in sorted(pools.items())}
    about: list[Row] = []
    ranks: list[tuple[bool, int, str]] = []
    for name, table in tables.items():
        for row in table.select(["id", "split", "answer", "letters", "priority"]).to_pylist():
            about.append({"task": name, "id": row["id"], "letters": row["letters"], "answer": row["answer"]})
            ranks.append((row["split"] == "train", row["priority"], row["id"]))
    rank = np.empty(len(ranks), np.int64)
    rank[sorted(range(len(ranks)), key=ranks.__getitem__)] = np.arange(len(ranks))
    numbers = {source: i for i, source in enumerate(sorted({t.source_id for t in tasks.values()}))}
    order = {name: i for i, name in enumerate(sorted(pools))}
    empty = np.zeros((0, minhash.BANDS * minhash.ROWS), np.uint32)
    made = minhash.Candidates(
        signatures=np.concatenate([empty, *(pool.signatures(table) for table in tables.values())]),
        rank=rank,
        task=np.array([order[row["task"]] for row in about], np.int64),
        source=np.array([numbers[tasks[row["task"]].source_id] for row in about], np.int64),
        answer=np.array([hash64(row["answer"]) >> 1 for row in about], np.int64),
    )
    return made, about


def removed(pairs: Mapping[int, int], about: list[Row]) -> dict[str, Removed]:
    """Per task, what leaves with the reason."""
    reasons: dict[str, dict[str, tuple[str, str]]] = {}
    for gone, kept in pairs.items():
        one, other = about[gone], about[kept]
        reason = NEAR
        if one["task"] != other["task"]:
            reason = EXACT_ACROSS if one["letters"] == other["letters"] else ACROSS
        reasons.setdefault(one["task"], {})[one["id"]] = (reason, f"{other['task']}/{other['id']}")
    return {task: Removed(found) for task, found in reasons.items()}


def render(row: Row, jobs: dict[str, ExamplesJob]) -> Row:
    """Writes one task's examples; a Ray Data map function."""
    job = jobs[row["task"]]
    storage.delete(job.out)
    records: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for kept in pool.read(job.pool).drop_columns(["signature"]).to_pylist():
        if kept["id"] not in job.removed:
            fields = json.loads(kept["fields"])
            records[kept["split"]].append(Record(kept["id"], "", kept["place"], fields))
    counts: Row = {}
    for split, quota in (("train", job.quota), ("validation", job.validation)):
        planned = example_rows.plan(job.task, records[split], quota, job.seed, job.repeat and split == "train", split)
        rows = [
            example_rows.render(job.task, p, split, job.seed) | {"rank": rank, "repeat": p.repeat, "num_tokens": 0}
            for rank, p in enumerate(planned)
        ]
        rows.sort(key=lambda r: (r["order"], r["id"]))
        write(job.out, split, pa.Table.from_pylist(rows, _RANKED))
        counts[split] = {"records": len(records[split]), "examples": len(rows)}
    manifest.commit(job.out, {"stage": "examples", "task": job.task.name, "splits": counts})
    return {"task": job.task.name}


def write(out: str, name: str, table: pa.Table) -> None:
    """Writes `<out>/<name>.parquet` in row groups of which a reader takes what it needs."""
    with storage.open_output(storage.join(out, f"{name}.parquet")) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)


def read(uri: str, split: str, columns: list[str] | None = None, quota: int | None = None) -> Iterator[list[Row]]:
    """Batches of a task's examples, by ascending `order`.

    Args:
        quota: only the rows of a rank below it; None means all.
    """
    with storage.open_input(storage.join(uri, f"{split}.parquet")) as file:
        wanted = columns if columns is None or quota is None else [*dict.fromkeys([*columns, "rank"])]
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH, columns=wanted):
            rows = batch.to_pylist()
            yield rows if quota is None else [row for row in rows if row["rank"] < quota]
