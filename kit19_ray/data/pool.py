"""The first step of a build, one Ray task a task: its files, in one pass, to records that examples may be drawn from.

    row --reader, schema--> record --evaluation items?--> --seen before?--> bottom-k by hash --> records.parquet

A pool does not depend on the mixture: it holds more records than its quota asks for, so that near duplicates can leave
and a quota can change without the sources being read again. It is written below `<root>/tasks/<task>/`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import GatesConfig
from kit19_ray.data.filters import minhash
from kit19_ray.data.filters.decontamination import Index
from kit19_ray.data.filters.exact_duplicates import CONTRADICTORY, Seen, content_key
from kit19_ray.data.filters.ngrams import letters
from kit19_ray.data.records import Record, to_record
from kit19_ray.data.sampling import Sample
from kit19_ray.io import storage
from kit19_ray.sources.readers.base import LocatedFile, Raw
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hash64

Row = dict[str, Any]
RECORDS, REJECTS = "records.parquet", "rejects.jsonl"
_BATCH = 1024  # records looked up in the index of evaluation items at once
_SPARE, _SPARE_VALIDATION = 1000, 100  # records kept beyond twice what is wanted, for near duplicates to leave
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("place", pa.string()),
        ("fields", pa.string()),  # JSON
        ("answer", pa.string()),
        ("letters", pa.uint64()),  # hash of the asked text in letters: equal ones are duplicates across tasks
        ("priority", pa.uint64()),  # of the sample: the smaller is drawn first
        ("signature", pa.binary(4 * minhash.BANDS * minhash.ROWS)),
    ]
)


@dataclass(frozen=True)
class PoolJob:
    """What one task's pool is made of; `out` is its prefix, `train` and `validation` are records wanted."""

    task: Task
    files: list[LocatedFile]
    out: str
    seed: int
    train: int
    validation: int
    validation_fraction: float
    gates: GatesConfig


def reject_line(task: str, place: str, reason: str, row: Any) -> str:
    """A line of a reject file: the task, where the row stands, why it left, the row as far as it is at hand."""
    file, _, line = place.rpartition(":")
    entry = {"task": task, "file": file, "line": int(line), "reason": reason, "row": row}
    return json.dumps(entry, ensure_ascii=False) + "\n"


class _Rejects:
    """Counts of what leaves, and the lines of the reject file, on disk: a source may consist of them."""

    def __init__(self, task: str) -> None:
        self._task = task
        self.counts: Counter[str] = Counter()
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `write`

    def add(self, place: str, reason: str, row: Any) -> None:
        self.counts[reason] += 1
        self._lines.write(reject_line(self._task, place, reason, row).encode())

    def write(self, uri: str) -> None:
        with self._lines, storage.open_output(uri) as out:
            self._lines.seek(0)
            shutil.copyfileobj(self._lines, out)


def fill(job: PoolJob, index: Index | None) -> None:
    """Fills one task's pool.

    Args:
        index: the evaluation items that no record may hold; None lets all pass.
    """
    storage.delete(job.out)  # what an interrupted build left
    pool = _Pool(job, index)
    for file in job.files:
        for raw in job.task.source.read(file):
            pool.offer(file, raw)
    pool.close()


class _Pool:
    def __init__(self, job: PoolJob, index: Index | None) -> None:
        self._job, self._index = job, index
        self._rejects = _Rejects(job.task.name)
        self._sample = Sample(
            job.task.name,
            job.seed,
            2 * job.train + _SPARE,
            2 * job.validation + _SPARE_VALIDATION if job.validation else 0,
            job.validation_fraction,
        )
        self._seen = Seen()
        self._waiting: list[Record] = []
        self._raw = self._records = self._kept = 0

    def offer(self, file: LocatedFile, raw: Any) -> None:
        """One row of a file."""
        self._raw += 1
        if not isinstance(raw, Raw):
            self._rejects.add(f"{file.path}:{raw.line}", raw.reason, raw.row)
            return
        record = to_record(self._job.task, file.path, raw)
        if isinstance(record, str):
            self._rejects.add(f"{file.path}:{raw.line}", record, raw.fields)
            return
        self._records += 1
        self._waiting.append(record)
        if len(self._waiting) == _BATCH:
            self._gate()

    def _gate(self) -> None:
        """Takes the waiting records through the gates and into the sample."""
        for record, leak in zip(self._waiting, self._leaks(), strict=True):
            if leak:
                self._rejects.add(record.place, f"contaminated_{leak}", record.fields)
                continue
            if self._job.gates.duplicates:
                key = content_key(self._job.task, record)
                reason = self._seen.reason(key, self._answer(record), record.place)
                if reason:
                    self._rejects.add(record.place, reason, record.fields)
                    continue
            self._kept += 1
            self._sample.add(record)
        self._waiting.clear()

    def _leaks(self) -> list[str | None]:
        if self._index is None:
            return [None] * len(self._waiting)
        answer = self._job.task.spec.answer
        return self._index.match(
            [[letters(text) for name, text in r.fields.items() if name != answer] for r in self._waiting]
        )

    def _answer(self, record: Record) -> str:
        return record.fields[self._job.task.spec.answer] if self._job.task.spec.answer else ""

    def close(self) -> None:
        """Writes the pool; its manifest last."""
        self._gate()
        out = self._job.out
        first_copies = set(self._seen.contradicted.values())
        rows = list(self._rows(first_copies))
        in_sample = {row["place"]: json.loads(row["fields"]) for row in rows if row["place"] in first_copies}
        for place in sorted(first_copies):
            # Its text is at hand only where it was in the sample; the place says where it stands.
            self._rejects.add(place, CONTRADICTORY, in_sample.get(place))
        rows = [row for row in rows if row["place"] not in first_copies]
        with storage.open_output(storage.join(out, RECORDS)) as file:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, compression="zstd")
        self._rejects.write(storage.join(out, REJECTS))
        manifest.commit(
            out,
            {
                "stage": "pool",
                "task": self._job.task.name,
                "raw": self._raw,
                "records": self._records,
                "unique": self._kept - len(first_copies),
                "dropped": dict(sorted(self._rejects.counts.items())),
            },
        )

    def _rows(self, first_copies: set[str]) -> Iterator[Row]:
        task, gates = self._job.task, self._job.gates
        names = task.asked_fields if task.spec.answer else task.spec.fields
        blank = bytes(4 * minhash.BANDS * minhash.ROWS)
        for split in ("train", "validation"):
            for record in self._sample.records(split):
                texts = [record.fields[name] for name in names]
                signed = gates.near_duplicates < 1 and record.place not in first_copies
                yield {
                    "id": record.id,
                    "split": split,
                    "place": record.place,
                    "fields": json.dumps(record.fields, ensure_ascii=False),
                    "answer": self._answer(record),
                    "letters": hash64(*map(letters, texts)),
                    "priority": hash64(self._job.seed, "sample", record.id),
                    "signature": minhash.signature(texts).astype("<u4").tobytes() if signed else blank,
                }


def read(uri: str) -> pa.Table:
    """The records of a finished pool, `SCHEMA`, each split by ascending priority."""
    with storage.open_input(storage.join(uri, RECORDS)) as file:
        return pq.read_table(file)


def signatures(table: pa.Table) -> minhash.UInt32:
    """The signatures of a pool's records: uint32 `[records, BANDS * ROWS]`."""
    column = table["signature"].combine_chunks()
    values = np.frombuffer(b"".join(column.to_pylist()), "<u4")
    return values.reshape(len(table), minhash.BANDS * minhash.ROWS).astype(np.uint32)
