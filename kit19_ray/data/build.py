"""The functions the data stage maps over Ray Data; each runs inside one task and writes whole files.

They are functions of their arguments and of object storage, so a retried task writes the same bytes again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from kit19_ray import shards, storage
from kit19_ray.data import examples as example_rows
from kit19_ray.data.hashing import hash64
from kit19_ray.data.packing import TokenRow, pack
from kit19_ray.data.records import to_record
from kit19_ray.data.sampling import Sample
from kit19_ray.data.tokens import Encoder
from kit19_ray.prompt import prompt_format
from kit19_ray.rows import EXAMPLE_SCHEMA
from kit19_ray.sources.formats import LocatedFile, Raw
from kit19_ray.sources import readers
from kit19_ray.tasks import Task

Row = dict[str, Any]
_REJECTS_KEPT = 10_000  # rows per task in its reject file; all are counted
TOKEN_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("task", pa.string()),
        ("key", pa.uint64()),
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),  # empty: did not fit, counted and left out
        ("num_prompt", pa.int32()),
        ("cut", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class TaskJob:
    """What one task's examples are built from; `quota` and `validation` count examples."""

    task: Task
    files: list[LocatedFile]
    out: str
    seed: int
    quota: int
    validation: int
    validation_fraction: float
    repeat: bool


@dataclass(frozen=True)
class ShardJob:
    """How examples become shards; `shards` is the number of files per split."""

    out: str
    seed: int
    seq_len: int
    prompt: str
    eos_id: int
    pad_id: int
    shards: dict[str, int]


def example_path(split: str, task: str) -> str:
    """Where a task's examples are, below the data prefix."""
    return f"examples/{split}-{task}.parquet"


def build_task(row: Row, jobs: dict[str, TaskJob]) -> Row:
    """Reads a task's files in one pass, writes its examples and its rejects, returns its counts as JSON."""
    job = jobs[row["task"]]
    sample = Sample(job.task.name, job.seed, job.quota, job.validation, job.validation_fraction)
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    rejects: list[Row] = []
    seen: set[str] = set()  # ids, for the count of duplicates: about 100 bytes a record
    for file in job.files:
        for raw in readers.read(job.task.source, file):
            counts["raw"] += 1
            if isinstance(raw, Raw):
                record = to_record(job.task, file.path, raw)
                reason, text = (record, json.dumps(raw.fields, ensure_ascii=False)) if isinstance(record, str) else ("", "")
            else:
                record, reason, text = raw.reason, raw.reason, raw.row
            if isinstance(record, str):
                dropped[reason] += 1
                if len(rejects) < _REJECTS_KEPT:
                    rejects.append({"task": job.task.name, "file": file.path, "line": raw.line, "reason": reason, "row": text})
                continue
            counts["records"] += 1
            seen.add(record.id)
            sample.add(record)
    stats: Row = {
        "raw": counts["raw"],
        "records": counts["records"],
        "dropped": dict(sorted(dropped.items())),
        "unique": len(seen),
        "quota": job.quota,
        "examples": {},
    }
    for split, quota in (("train", job.quota), ("validation", job.validation)):
        records = sample.records(split)
        planned = example_rows.plan(job.task, records, quota, job.seed, job.repeat and split == "train")
        table = pa.Table.from_pylist(list(example_rows.rows(job.task, planned, split, job.seed)), EXAMPLE_SCHEMA)
        if len(table):
            with storage.open_output(storage.join(job.out, example_path(split, job.task.name))) as out:
                pq.write_table(table, out, compression="zstd")
        stats["examples"][split] = len(table)
        if split == "train":
            stats["repeated"] = sum(1 for p in planned if p.repeat)
            stats["shortfall"] = _shortfall(job, len(records), len(planned))
    if rejects:
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rejects)
        storage.write_text(storage.join(job.out, f"rejects/{job.task.name}.jsonl"), lines)
    return {"task": job.task.name, "stats": json.dumps(stats)}


def _shortfall(job: TaskJob, records: int, examples: int) -> str:
    """Why the quota was not reached, or "" when it was."""
    if examples >= job.quota:
        return ""
    how = f"under {len(job.task.spec.templates)} templates" if job.repeat else "used once each"
    return f"{records:,} training records {how} give {examples:,} of {job.quota:,} examples"


def texts(out: str, tasks: Iterable[str], prompt: str) -> Iterator[str]:
    """Prompt and answer of every training example, task by task: what a BPE is trained on."""
    wrapper = prompt_format(prompt)
    for task in tasks:
        for row in _example_rows(out, task, ["instruction", "input", "output"]):
            yield wrapper.render(row["instruction"], row["input"])
            yield row["output"]


def _example_rows(out: str, task: str, columns: list[str]) -> Iterator[Row]:
    path = storage.join(out, example_path("train", task))
    if storage.exists(path):
        with storage.open_input(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=columns):
                yield from batch.to_pylist()


def export_toolkit(out: str, tasks: Iterable[str], rows: int) -> str:
    """Writes `toolkit_<rows>.csv` with the published columns; the paper's build has 100,000 rows."""
    name = f"toolkit_{rows}.csv"
    schema = pa.schema([(c, pa.string()) for c in ("instruction", "input", "output", "task")])
    with storage.open_output(storage.join(out, name)) as file, pyarrow.csv.CSVWriter(file, schema) as writer:
        for task in tasks:
            path = storage.join(out, example_path("train", task))
            if storage.exists(path):
                with storage.open_input(path) as examples:
                    writer.write_table(pq.read_table(examples, columns=schema.names).cast(schema))
    return name


@lru_cache(maxsize=2)
def _encoder(job_out: str, prompt: str, eos_id: int, seq_len: int) -> Encoder:
    from tokenizers import Tokenizer

    text = storage.read_text(storage.join(job_out, "tokenizer", "tokenizer.json"))
    return Encoder(Tokenizer.from_str(text), prompt_format(prompt), eos_id, seq_len)


def tokenize(table: pa.Table, job: ShardJob) -> pa.Table:
    """Example rows -> token rows with the shard each belongs to, in the columns of `TOKEN_SCHEMA`."""
    rows = table.to_pylist()
    encoder = _encoder(job.out, job.prompt, job.eos_id, job.seq_len)
    tokens = []
    for row, (encoded, cut) in zip(rows, encoder.encode(rows), strict=True):
        key = hash64(job.seed, "shard", row["id"])
        shard = ((key >> 32) * job.shards[row["split"]]) >> 32
        tokens.append(
            {
                "shard": f"{row['split']}/shard-{shard:05d}.arrow",
                "task": row["task"],
                "key": key,
                "id": row["id"],
                "input_ids": encoded.input_ids if encoded else [],
                "num_prompt": encoded.num_prompt if encoded else 0,
                "cut": cut,
            }
        )
    return pa.Table.from_pylist(tokens, TOKEN_SCHEMA)


def pack_shard(table: pa.Table, job: ShardJob) -> pa.Table:
    """Packs one shard's token rows, writes its file, returns one row of counts."""
    table = table.sort_by([("key", "ascending"), ("id", "ascending")])
    path = table["shard"][0].as_py()
    counts: dict[str, Counter[str]] = {}
    rows = []
    for task, ids, num_prompt, cut in zip(
        table["task"].to_pylist(),
        (scalar.values for scalar in table["input_ids"]),
        table["num_prompt"].to_pylist(),
        table["cut"].to_pylist(),
        strict=True,
    ):
        count = counts.setdefault(task, Counter())
        if not len(ids):
            count["too_long"] += 1
            continue
        row = TokenRow(ids.to_numpy(), num_prompt)
        rows.append(row)
        count.update(examples=1, truncated=int(cut), tokens=len(ids), labels=len(ids) - num_prompt)
    data = shards.to_ipc(*pack(rows, job.seq_len, job.pad_id))
    storage.write_bytes(storage.join(job.out, path), data)
    used = sum(len(r.input_ids) for r in rows)
    entry = {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "examples": len(rows), "tokens": used}
    return pa.table({k: [v] for k, v in entry.items()} | {"counts": [json.dumps(counts)], "rows": [shards.count(data)]})


def add_tokens(tasks: dict[str, Row], packed: list[Row]) -> dict[str, Row]:
    """Each task's counts with its tokens, learned tokens, cut and left-out examples over all shards."""
    totals: dict[str, Counter[str]] = {name: Counter() for name in tasks}
    for row in packed:
        for name, counts in json.loads(row["counts"]).items():
            totals[name].update(counts)
    return {
        name: stats
        | {key: totals[name][key] for key in ("tokens", "labels", "truncated")}
        | {"dropped": stats["dropped"] | ({"too_long": n} if (n := totals[name]["too_long"]) else {})}
        for name, stats in tasks.items()
    }


def split_totals(packed: list[Row], seq_len: int) -> dict[str, Row]:
    """Per split: rows, examples, tokens, learned tokens, packing efficiency and its shards."""
    splits: dict[str, Row] = {s: {"rows": 0, "examples": 0, "tokens": 0, "labels": 0, "shards": []} for s in ("train", "validation")}
    for row in packed:
        split = splits[row["path"].partition("/")[0]]
        for key in ("rows", "examples", "tokens"):
            split[key] += row[key]
        split["labels"] += sum(c.get("labels", 0) for c in json.loads(row["counts"]).values())
        split["shards"].append({key: row[key] for key in ("path", "rows", "examples", "sha256")})
    for split in splits.values():
        split["packing_efficiency"] = round(split["tokens"] / (split["rows"] * seq_len), 4) if split["rows"] else 0.0
    return splits
