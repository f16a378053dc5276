"""From pools to examples to tokens, task by task; each prefix is used again while what it depends on is the same.

    pool  --near duplicates of all tasks leave-->  examples-<hash>/{train,validation}.parquet     by rank
    examples  --tokenizer-->  tokens-<hash>/{train,validation}.parquet                            the same rows

`rank` is the row's place in its task: a quota of q takes the rows of rank below q, so another quota takes other rows of
the same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kit19_ray import manifest, storage
from kit19_ray.data import duplicates, pool
from kit19_ray.data import examples as example_rows
from kit19_ray.data.hashing import hash64
from kit19_ray.data.records import Record
from kit19_ray.data.tokens import Encoder
from kit19_ray.prompt import prompt_format
from kit19_ray.rows import EXAMPLE_SCHEMA
from kit19_ray.tasks import Task

Row = dict[str, Any]
SPLITS = ("train", "validation")
NEAR, ACROSS, EXACT_ACROSS = "near_duplicate", "near_duplicate_across_tasks", "exact_duplicate_across_tasks"
_BATCH = 2048  # examples tokenized at once
_ROW_GROUP = 512  # rows: a shard reads of each task's file little more than it needs
_RANKED = pa.schema([*EXAMPLE_SCHEMA, ("rank", pa.int32()), ("repeat", pa.int32())])
_TOKENS = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("order", pa.int64()),
        ("rank", pa.int32()),
        ("num_prompt", pa.int32()),
        ("cut", pa.bool_()),  # whether the input was cut so that the answer fits
        ("input_ids", pa.list_(pa.int32())),  # empty: prompt and answer do not fit
    ]
)


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
class TokensJob:
    """One task's examples -> tokens."""

    examples: str
    out: str
    tokenizer: str
    prompt: str
    eos_id: int
    seq_len: int


@dataclass(frozen=True)
class Removed:
    """Records of one task that left because others are near: id -> reason and id of the one that stayed."""

    reasons: Mapping[str, tuple[str, str]]

    def digest(self) -> str:
        """What tells one such set from another."""
        return manifest.digest(sorted(self.reasons))


def candidates(pools: Mapping[str, str], tasks: Mapping[str, Task]) -> tuple[duplicates.Candidates, list[Row]]:
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
    empty = np.zeros((0, duplicates.BANDS * duplicates.ROWS), np.uint32)
    made = duplicates.Candidates(
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
        planned = example_rows.plan(job.task, records[split], quota, job.seed, job.repeat and split == "train")
        rows = [
            example_rows.render(job.task, p, split, job.seed) | {"rank": rank, "repeat": p.repeat, "num_tokens": 0}
            for rank, p in enumerate(planned)
        ]
        rows.sort(key=lambda r: (r["order"], r["id"]))
        _write(job.out, split, pa.Table.from_pylist(rows, _RANKED))
        counts[split] = {"records": len(records[split]), "examples": len(rows)}
    manifest.commit(job.out, {"stage": "examples", "task": job.task.name, "splits": counts})
    return {"task": job.task.name}


def tokenize(row: Row, jobs: dict[str, TokensJob]) -> Row:
    """Writes one task's tokens; a Ray Data map function."""
    job = jobs[row["task"]]
    storage.delete(job.out)
    encoder = _encoder(job.tokenizer, job.prompt, job.eos_id, job.seq_len)
    for split in SPLITS:
        batches = [_encoded(encoder, batch) for batch in _batches(job.examples, split)]
        _write(job.out, split, pa.Table.from_batches(batches, _TOKENS))
    manifest.commit(job.out, {"stage": "tokens", "examples": job.examples.rpartition("/")[2]})
    return {"task": row["task"]}


def _batches(uri: str, split: str) -> Iterator[pa.RecordBatch]:
    """What is needed of a task's examples to tokenize them."""
    with storage.open_input(storage.join(uri, f"{split}.parquet")) as file:
        columns = ["id", "task", "instruction", "input", "output", "order", "rank"]
        yield from pq.ParquetFile(file).iter_batches(batch_size=_BATCH, columns=columns)


def _encoded(encoder: Encoder, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of examples as `_TOKENS`; ids go from numpy to Arrow without becoming Python numbers."""
    encoded = encoder.encode(batch.select(["instruction", "input", "output"]).to_pylist())
    ids = [tokens.input_ids if tokens else np.zeros(0, np.int32) for tokens, _ in encoded]
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int32)
    made = {
        "num_prompt": pa.array([tokens.num_prompt if tokens else 0 for tokens, _ in encoded], pa.int32()),
        "cut": pa.array([cut for _, cut in encoded], pa.bool_()),
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(ids) if ids else np.zeros(0, np.int32))),
    }
    kept = {name: batch.column(name) for name in ("id", "task", "order", "rank")}
    return pa.RecordBatch.from_arrays([(kept | made)[name] for name in _TOKENS.names], schema=_TOKENS)


def _write(out: str, split: str, table: pa.Table) -> None:
    with storage.open_output(storage.join(out, f"{split}.parquet")) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)


def read(uri: str, split: str, columns: list[str] | None = None, quota: int | None = None) -> Iterator[list[Row]]:
    """Batches of a task's examples or tokens, by ascending `order`.

    Args:
        quota: only the rows of a rank below it; None means all.
    """
    with storage.open_input(storage.join(uri, f"{split}.parquet")) as file:
        wanted = columns if columns is None or quota is None else [*dict.fromkeys([*columns, "rank"])]
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH, columns=wanted):
            rows = batch.to_pylist()
            yield rows if quota is None else [row for row in rows if row["rank"] < quota]


@lru_cache(maxsize=2)
def _encoder(tokenizer: str, prompt: str, eos_id: int, seq_len: int) -> Encoder:
    from tokenizers import Tokenizer

    return Encoder(Tokenizer.from_str(storage.read_text(tokenizer)), prompt_format(prompt), eos_id, seq_len)
