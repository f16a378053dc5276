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
from kit19_ray.data.packing import TokenRow, pack
from kit19_ray.data.records import to_record
from kit19_ray.data.sampling import Sample
from kit19_ray.data.tokens import Encoder
from kit19_ray.prompt import prompt_format
from kit19_ray.rows import EXAMPLE_SCHEMA
from kit19_ray.sources import readers
from kit19_ray.sources.formats import LocatedFile, Raw
from kit19_ray.tasks import Task

Row = dict[str, Any]
_REJECTS_KEPT = 10_000  # rows per task in its reject file; all are counted
_ROW_GROUP = 512  # examples: a shard reads of each task's file little more than it needs


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
    tasks: list[str]
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
            record = to_record(job.task, file.path, raw) if isinstance(raw, Raw) else raw.reason
            if isinstance(record, str):
                dropped[record] += 1
                if len(rejects) < _REJECTS_KEPT:
                    row_ = raw.fields if isinstance(raw, Raw) else raw.row
                    place = {"task": job.task.name, "file": file.path, "line": raw.line}
                    rejects.append(place | {"reason": record, "row": row_})
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
        table = pa.Table.from_pylist(example_rows.rows(job.task, planned, split, job.seed), EXAMPLE_SCHEMA)
        if len(table):
            with storage.open_output(storage.join(job.out, example_path(split, job.task.name))) as out:
                pq.write_table(table, out, compression="zstd", row_group_size=_ROW_GROUP)
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


def shard_path(split: str, number: int) -> str:
    """Where a shard is, below the data prefix."""
    return f"{split}/shard-{number:05d}.arrow"


def build_shard(row: Row, job: ShardJob) -> Row:
    """Reads one shard's examples, tokenizes and packs them, writes the file, returns its counts.

    A shard is a range of `order`, over all tasks, so what it holds does not depend on any other shard.
    """
    split, number = row["split"], row["number"]
    encoder = _encoder(job.out, job.prompt, job.eos_id, job.seq_len)
    examples = _shard_examples(job, split, number)
    counts: dict[str, Counter[str]] = {}
    rows: list[TokenRow] = []
    for example, (tokens, cut) in zip(examples, encoder.encode(examples), strict=True):
        count = counts.setdefault(example["task"], Counter())
        if tokens is None:
            count["too_long"] += 1
            continue
        rows.append(tokens)
        length = len(tokens.input_ids)
        count.update(examples=1, truncated=int(cut), tokens=length, labels=length - tokens.num_prompt)
    packed = pack(rows, job.seq_len, job.pad_id)
    data = shards.to_ipc(*packed)
    path = shard_path(split, number)
    storage.write_bytes(storage.join(job.out, path), data)
    return {
        "path": path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "rows": len(packed[0]),
        "examples": len(rows),
        "tokens": sum(len(r.input_ids) for r in rows),
        "counts": json.dumps(counts),
    }


def _shard_examples(job: ShardJob, split: str, number: int) -> list[Row]:
    """The examples with `order` in the shard's range, by ascending `order`."""
    low, high = (-(-(n << 63) // job.shards[split]) for n in (number, number + 1))
    in_range = [("order", ">=", low), ("order", "<=", high - 1)]
    columns = ["id", "task", "instruction", "input", "output", "order"]
    found: list[Row] = []
    for task in job.tasks:
        path = storage.join(job.out, example_path(split, task))
        if storage.exists(path):
            with storage.open_input(path) as file:
                found += pq.read_table(file, columns=columns, filters=in_range).to_pylist()
    return sorted(found, key=lambda example: (example["order"], example["id"]))


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
    splits: dict[str, Row] = {
        split: {"rows": 0, "examples": 0, "tokens": 0, "labels": 0, "shards": []} for split in ("train", "validation")
    }
    for row in packed:
        split = splits[row["path"].partition("/")[0]]
        for key in ("rows", "examples", "tokens"):
            split[key] += row[key]
        split["labels"] += sum(c.get("labels", 0) for c in json.loads(row["counts"]).values())
        split["shards"].append({key: row[key] for key in ("path", "rows", "examples", "sha256")})
    for split in splits.values():
        split["packing_efficiency"] = round(split["tokens"] / (split["rows"] * seq_len), 4) if split["rows"] else 0.0
    return splits
