"""Which records leave because another is nearly the same: band by band over the records' files, then merged.

    records, all tasks   --one column-->  keys of a band  --those that stand twice-->  members, whole  -->  pairs
    pairs, all bands     --by record-->   what leaves, with the nearest to the front of those it is near to

A band's search reads one column of every record and the rows of those that meet; nothing has all signatures at once.
Validation records stand before training records, so that it is the training row that leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kit19_ray.artifacts import manifest
from kit19_ray.data.filters import minhash
from kit19_ray.data.filters.ngrams import Int64, UInt64
from kit19_ray.io import storage

NEAR, ACROSS, EXACT_ACROSS = "near_duplicate", "near_duplicate_across_tasks", "exact_duplicate_across_tasks"
BAND_COLUMNS = [f"band_{band:02d}" for band in range(minhash.BANDS)]
_ABOUT = ["id", "priority", "letters", "answer_hash"]
REMOVED = pa.schema([("id", pa.string()), ("reason", pa.string()), ("near", pa.string())])
_PAIRS = pa.schema(
    [
        ("task", pa.string()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("near", pa.string()),  # task/id of the one that stays
        ("near_train", pa.bool_()),
        ("near_priority", pa.uint64()),
        ("near_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class RecordFile:
    """A file of a task's records; `cls` is the place of their class, where classes are drawn apart."""

    uri: str
    task: str
    source: str
    split: str
    rows: int
    sha256: str
    cls: int = 0


def pairs(files: Sequence[RecordFile], band: int, threshold: float) -> pa.Table:
    """What leaves as far as one band shows, `_PAIRS`."""
    keys: list[UInt64] = []
    for file in files:
        with storage.open_input(file.uri) as stream:
            column = pq.read_table(stream, columns=[BAND_COLUMNS[band]])[BAND_COLUMNS[band]]
        keys.append(minhash.band_keys(minhash.unpack([column])))
    every = np.concatenate([np.zeros(0, np.uint64), *keys])
    members = minhash.met(every)
    if not len(members):
        return _PAIRS.empty_table()
    starts = np.concatenate([[0], np.cumsum([len(k) for k in keys])])
    tables, owner = [], np.searchsorted(starts, members, "right") - 1
    for number in np.unique(owner):
        with storage.open_input(files[number].uri) as stream:
            table = pq.read_table(stream, columns=[*_ABOUT, *BAND_COLUMNS])
        tables.append(table.take(pa.array(members[owner == number] - starts[number])))
    return _found(files, owner, every[members], pa.concat_tables(tables), threshold)


def _found(files: Sequence[RecordFile], owner: Int64, keys: UInt64, table: pa.Table, threshold: float) -> pa.Table:
    train = np.array([files[n].split == "train" for n in owner])
    ids, priority = table["id"].to_pylist(), table["priority"].to_numpy()
    letters = table["letters"].to_numpy()
    order = sorted(range(len(ids)), key=lambda i: (bool(train[i]), int(priority[i]), ids[i]))
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    tasks, task = np.unique([files[n].task for n in owner], return_inverse=True)
    source = np.unique([files[n].source for n in owner], return_inverse=True)[1]
    candidates = minhash.BandMates(
        key=keys,
        signatures=minhash.unpack([table[name] for name in BAND_COLUMNS]),
        rank=rank,
        task=task.astype(np.int64),
        source=source.astype(np.int64),
        answer=table["answer_hash"].to_numpy(),
    )
    rows = []
    for gone, kept in candidates.near(threshold).items():
        reason = NEAR
        if task[gone] != task[kept]:
            reason = EXACT_ACROSS if letters[gone] == letters[kept] else ACROSS
        near = f"{tasks[task[kept]]}/{ids[kept]}"
        rows.append((tasks[task[gone]], ids[gone], reason, near, bool(train[kept]), int(priority[kept]), ids[kept]))
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(_PAIRS)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, _PAIRS, strict=True)], schema=_PAIRS)


@dataclass(frozen=True)
class NearDuplicates:
    """Records of one task that left because others are near: `REMOVED`, by id; `digest` tells one set from another."""

    table: pa.Table
    digest: str


def merge(found: Sequence[pa.Table]) -> dict[str, NearDuplicates]:
    """Per task what leaves over all bands, each with the nearest to the front of those it was found near to."""
    every = pa.concat_tables([_PAIRS.empty_table(), *found]).sort_by(
        [(name, "ascending") for name in ("task", "id", "near_train", "near_priority", "near_id")]
    )
    ids, tasks = every["id"].to_pylist(), every["task"].to_pylist()
    first = [i for i in range(len(ids)) if i == 0 or (tasks[i], ids[i]) != (tasks[i - 1], ids[i - 1])]
    once = every.take(pa.array(first, pa.int64()))
    return {
        task: removed(once.filter(pc.equal(once["task"], task)).select(REMOVED.names))
        for task in pc.unique(once["task"]).to_pylist()
    }


def removed(table: pa.Table) -> NearDuplicates:
    """A set of records that left."""
    return NearDuplicates(table, manifest.digest(table["id"].to_pylist()))
