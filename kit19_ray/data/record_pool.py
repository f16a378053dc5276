"""Checked rows -> the records that examples may be drawn from: copies leave, the smallest of a hash stay.

    copies    a Ray task a bucket        all copies of a text are in one bucket; the first stays
    sample    a Ray task a run of ranks  the bottom k over all buckets, with what near duplicates are found by
    finish    a Ray task a task          rejects and the commit marker

A pool does not depend on the mixture: it holds more records than its quota asks for, so that near duplicates can leave
and a quota can change without the sources being read again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.data_manifests import PoolCounts, RecordsManifest
from kit19_ray.config.schema import GatesConfig
from kit19_ray.data import rejects, sampling, shuffle, tables
from kit19_ray.data.checks import CHECKED
from kit19_ray.data.filters import minhash
from kit19_ray.data.filters.exact_duplicates import DuplicateTracker
from kit19_ray.data.filters.near_duplicates import BAND_COLUMNS, RecordFile
from kit19_ray.data.filters.ngrams import normalize_letters
from kit19_ray.data.sampling import RankRange, UInt64
from kit19_ray.io import storage
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hash64

SPLITS = ("train", "validation")
Drawn = tuple[str, int]  # a sample: the split, and the class where classes are drawn apart
RUN = 8192  # records of a file
REJECTS = "rejects.jsonl"
_ROW_GROUP = 2048  # rows
_PARTS_AT_ONCE = 4  # file parts whose rejects are sorted together
_LEFT = ["part", "nth", "place", "dropped", "fields"]
_KEPT = pa.schema([CHECKED.field(name) for name in ("place", "id", "fields", "answer", "priority")])
RECORDS = pa.schema(
    [
        *_KEPT,
        ("answer_hash", pa.int64()),
        ("letters", pa.uint64()),  # hash of the asked text in letters: equal ones are duplicates across tasks
        *((name, pa.binary(4 * minhash.ROWS)) for name in BAND_COLUMNS),
    ]
)


@dataclass(frozen=True)
class RecordPool:
    """One task's records in the making.

    Attributes:
        rows: prefix of the checked rows, `files` below it.
        num_buckets: of the checked rows; the dropped ones are one more.
        num_parts: file parts the rows came from.
        out: prefix of the records.
        wanted: records to keep by split; of each class as many, where classes are drawn apart.
        classes: the labels of which the training records are drawn apart.
    """

    task: Task
    rows: str
    files: Sequence[str]
    num_buckets: int
    num_parts: int
    out: str
    wanted: dict[str, int]
    gates: GatesConfig
    classes: tuple[str, ...] = ()

    def kept(self, drawn: Drawn, bucket: int) -> str:
        split, cls = drawn
        return storage.join(self.rows, f"kept-{split}-{cls}-{bucket:05d}.parquet")

    def drawn(self) -> list[Drawn]:
        """What is drawn apart from one another: the splits, and of the training split the classes."""
        return [*(("train", cls) for cls in range(len(self.classes) or 1)), ("validation", 0)]

    def dropped(self, bucket: int) -> str:
        return storage.join(self.rows, f"dropped-{bucket:05d}.parquet")


@dataclass(frozen=True)
class Bucket:
    """What became of a bucket's rows.

    Attributes:
        unique: rows that stay, by answer.
        kept: how many of them are offered to each sample.
        dropped: rows that left, by reason.
    """

    unique: Counter[str]
    kept: dict[Drawn, int]
    dropped: Counter[str]


def copies(pool: RecordPool, bucket: int) -> Bucket:
    """Drops a bucket's copies and writes what stays, by rank, as far as the sample can need it."""
    table = shuffle.read([storage.join(pool.rows, name) for name in pool.files], bucket, CHECKED)
    if pool.gates.duplicates:
        table = table.set_column(table.schema.get_field_index("dropped"), "dropped", _reasons(table))
    left = table.filter(pc.is_valid(table["dropped"])).select(_LEFT)
    tables.write(pool.dropped(bucket), left.sort_by([("part", "ascending"), ("nth", "ascending")]), _ROW_GROUP)
    stays = table.filter(pc.is_null(table["dropped"]))
    del table  # a bucket is what this process holds most of
    offered = stays if pool.gates.duplicates else _one_per_id(stays)
    kept = {}
    for drawn in pool.drawn():
        split, cls = drawn
        mine = pc.equal(offered["validation"], split == "validation")
        if pool.classes and split == "train":
            mine = pc.and_(mine, pc.equal(offered["answer"], pool.classes[cls]))
        rows = pc.indices_nonzero(mine)
        kept[drawn] = len(rows)
        ranked = offered.select(["priority", "id"]).take(rows)
        first = pc.sort_indices(ranked, [("priority", "ascending"), ("id", "ascending")])[: pool.wanted[split]]
        tables.write(pool.kept(drawn, bucket), offered.select(_KEPT.names).take(rows.take(first)), _ROW_GROUP)
    return Bucket(Counter(stays["answer"].to_pylist()), kept, Counter(left["dropped"].to_pylist()))


def _reasons(table: pa.Table) -> pa.Array:
    """Why a bucket's rows leave as copies; only rows whose key stands there twice are looked at one by one."""
    keys = table["key"].to_numpy()
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    several = np.flatnonzero(counts[inverse] > 1)
    place = table.select(["part", "nth"]).take(pa.array(several))
    order = several[pc.sort_indices(place, [("part", "ascending"), ("nth", "ascending")]).to_numpy()]
    answers = table["answer"].take(pa.array(order)).to_pylist()
    found = np.full(len(keys), None, dtype=object)
    found[order] = DuplicateTracker().reasons(zip(keys[order].tolist(), answers, strict=True))
    return pa.array(found, pa.string())


def _one_per_id(table: pa.Table) -> pa.Table:
    """Of equal records the one whose place sorts first."""
    first: dict[str, tuple[tuple[str, int], int]] = {}
    for row, (id_, place) in enumerate(zip(table["id"].to_pylist(), table["place"].to_pylist(), strict=True)):
        here = (sampling.place_key(place), row)
        first[id_] = min(first.get(id_, here), here)
    return table.take(pa.array(sorted(row for _, row in first.values()), pa.int64()))


def ranges(pool: RecordPool, drawn: Drawn) -> list[RankRange]:
    """A sample over all buckets, in runs of the rank."""
    found: list[UInt64] = []
    for bucket in range(pool.num_buckets):
        with storage.open_input(pool.kept(drawn, bucket)) as file:
            found.append(pq.read_table(file, columns=["priority"])["priority"].to_numpy())
    return sampling.runs(np.concatenate(found), pool.wanted[drawn[0]], RUN)


def sample(pool: RecordPool, drawn: Drawn, number: int, run: RankRange) -> RecordFile:
    """Writes one run of a sample: the records, by rank, with what near duplicates are found by.

    Args:
        number: of the run among all of its split.
    """
    found = []
    for bucket in range(pool.num_buckets):
        # As scalars: a Python number is taken for an int64.
        low, high = (pa.scalar(n, pa.uint64()) for n in (run.low, run.high))
        chosen = (pc.field("priority") >= low) & (pc.field("priority") <= high)
        with storage.open_input(pool.kept(drawn, bucket)) as file:
            found.append(pq.read_table(file, filters=chosen))
    table = pa.concat_tables(found).sort_by([("priority", "ascending"), ("id", "ascending")]).slice(0, run.take)
    task = pool.task
    names = task.asked_fields if task.spec.answer else task.spec.fields
    texts = [[fields[name] for name in names] for fields in map(json.loads, table["fields"].to_pylist())]
    if pool.gates.near_duplicates < 1:
        bands = minhash.pack([minhash.signature(row) for row in texts])
    else:
        bands = [pa.array([bytes(4 * minhash.ROWS)] * len(texts), pa.binary(4 * minhash.ROWS))] * minhash.BANDS
    made = [
        *(table[name] for name in _KEPT.names),
        pa.array([hash64(answer) >> 1 for answer in table["answer"].to_pylist()], pa.int64()),
        pa.array([hash64(*map(normalize_letters, row)) for row in texts], pa.uint64()),
        *bands,
    ]
    split, cls = drawn
    uri = storage.join(pool.out, _path(split, number))
    sha256 = tables.write(uri, pa.Table.from_arrays(made, schema=RECORDS), _ROW_GROUP)
    return RecordFile(uri, task.name, pool.task.source_id, split, len(table), sha256, cls)


def finish(pool: RecordPool, counts: PoolCounts, files: Sequence[RecordFile]) -> None:
    """Writes the rejects, in the order of the files, and commits the pool."""
    with storage.open_output(storage.join(pool.out, REJECTS)) as out:
        for first in range(0, pool.num_parts, _PARTS_AT_ONCE):
            for line in rejects.lines(pool.task.name, [_dropped(pool, first, first + _PARTS_AT_ONCE)]):
                out.write(line.encode())
    runs = {split: [(file.rows, file.cls) for file in files if file.split == split] for split in SPLITS}
    known = {file.uri.rpartition("/")[2]: file.sha256 for file in files}
    made: RecordsManifest = {"stage": "records", "task": pool.task.name, **counts, "runs": runs}
    manifest.commit(pool.out, made, known=known, without=["rows/"])


def _dropped(pool: RecordPool, first: int, end: int) -> pa.Table:
    """What left of the file parts from `first` to before `end`, in order: by itself, or as a copy."""
    names = [name for name in pool.files if first <= int(name.split("-")[1]) < end]
    alone = shuffle.read([storage.join(pool.rows, name) for name in names], pool.num_buckets, CHECKED)
    found = [alone.select(_LEFT)]
    for bucket in range(pool.num_buckets):
        with storage.open_input(pool.dropped(bucket)) as file:
            found.append(pq.read_table(file, filters=[("part", ">=", first), ("part", "<", end)]))
    return pa.concat_tables(found).sort_by([("part", "ascending"), ("nth", "ascending")])


def files(uri: str, task: Task) -> list[RecordFile]:
    """The record files of a finished pool, train first, each split by class and rank."""
    built = manifest.require(uri, "data", "records")
    hashes = manifest.hashes(built)
    return [
        RecordFile(
            storage.join(uri, _path(split, number)),
            task.name,
            task.source_id,
            split,
            rows,
            hashes[_path(split, number)],
            cls,
        )
        for split in SPLITS
        for number, (rows, cls) in enumerate(built["runs"][split])
    ]


def _path(split: str, number: int) -> str:
    return f"{split}-{number:05d}.parquet"
