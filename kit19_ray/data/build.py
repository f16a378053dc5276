"""The mixture itself: each task's share of its examples, the tokenizer's texts, packed shards, totals.

Everything here runs inside one Ray task a task or a shard, and writes whole files; a retried one writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from kit19_ray.artifacts import packed_shards
from kit19_ray.artifacts.schemas import EXAMPLE_SCHEMA
from kit19_ray.data import pool, prepare, tokenization
from kit19_ray.data.packing import TokenRow, pack
from kit19_ray.data.prepare import SPLITS, Removed
from kit19_ray.io import storage
from kit19_ray.lm.prompts import prompt_format

Row = dict[str, Any]
_ROW_GROUP = 512  # examples


@dataclass(frozen=True)
class Share:
    """One task's part of a mixture: where its pool, examples and tokens are, and how many of them are taken."""

    task: str
    pool: str
    examples: str
    tokens: str
    quotas: dict[str, int]  # by split
    removed: Removed


@dataclass(frozen=True)
class ShardJob:
    """How shares become shards; `shards` is the number of files per split."""

    out: str
    shares: list[Share]
    seq_len: int
    pad_id: int
    shards: dict[str, int]


def example_path(split: str, task: str) -> str:
    """Where a task's examples are, below the data prefix."""
    return f"examples/{split}-{task}.parquet"


def shard_path(split: str, number: int) -> str:
    """Where a shard is, below the data prefix."""
    return f"{split}/shard-{number:05d}.arrow"


def texts(shares: Iterable[Share], prompt: str) -> Iterator[str]:
    """Prompt and answer of every training example, task by task: what a BPE is trained on."""
    wrapper = prompt_format(prompt)
    for share in shares:
        columns = ["instruction", "input", "output"]
        for batch in prepare.read(share.examples, "train", columns, share.quotas["train"]):
            for row in batch:
                yield wrapper.render(row["instruction"], row["input"])
                yield row["output"]


def export(row: Row, shares: dict[str, Share], out: str) -> Row:
    """Writes one task's examples and rejects below the data prefix and returns its counts; a Ray Data map function."""
    share = shares[row["task"]]
    dropped: Counter[str] = Counter(reason for reason, _ in share.removed.reasons.values())
    lines = [*_near_lines(share)]
    counts: Row = {"examples": {}, "repeated": 0, "tokens": 0, "labels": 0, "truncated": 0}
    for split in SPLITS:
        quota = share.quotas[split]
        found = _tokens(share, split, quota)
        rows: list[Row] = []
        for example in (e for batch in prepare.read(share.examples, split, None, quota) for e in batch):
            num_tokens, learned, cut = found[example["id"]]
            if split == "train":
                counts["repeated"] += example["repeat"] > 0
            if not num_tokens:
                dropped["too_long"] += 1
                shown = {key: example[key] for key in ("instruction", "input", "output")}
                lines.append(pool.reject_line(share.task, example["source_id"], "too_long", shown))
            counts["tokens"] += num_tokens
            counts["labels"] += learned
            counts["truncated"] += cut
            rows.append(example | {"num_tokens": num_tokens})
        counts["examples"][split] = len(rows)
        if rows:
            with storage.open_output(storage.join(out, example_path(split, share.task))) as file:
                table = pa.Table.from_pylist(rows, EXAMPLE_SCHEMA)
                pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)
    earlier = storage.read_text(storage.join(share.pool, pool.REJECTS))
    if earlier or lines:
        storage.write_text(storage.join(out, f"rejects/{share.task}.jsonl"), earlier + "".join(lines))
    return {"task": share.task, "stats": json.dumps(counts | {"dropped": dict(sorted(dropped.items()))})}


def _near_lines(share: Share) -> Iterator[str]:
    """The reject lines of what near duplicates made leave, in the order of the ids."""
    if not share.removed.reasons:
        return
    records = pool.read(share.pool).select(["id", "place", "fields"]).to_pylist()
    for record in sorted(records, key=lambda r: str(r["id"])):
        if record["id"] in share.removed.reasons:
            reason, kept = share.removed.reasons[record["id"]]
            fields = json.loads(record["fields"])
            yield pool.reject_line(share.task, record["place"], reason, fields | {"near": kept})


def _tokens(share: Share, split: str, quota: int) -> dict[str, tuple[int, int, bool]]:
    """Id -> tokens, learned tokens, whether the input was cut."""
    table = tokenization.read(share.tokens, split, ["id", "num_prompt", "cut", "input_ids"], [("rank", "<", quota)])
    lengths = pc.list_value_length(table["input_ids"]).to_pylist()
    rows = zip(*(table[name].to_pylist() for name in ("id", "num_prompt", "cut")), lengths, strict=True)
    return {id_: (length, length - num_prompt, cut) for id_, num_prompt, cut, length in rows}


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


def build_shard(row: Row, job: ShardJob) -> Row:
    """Packs one shard's examples, writes the file, returns its counts; a Ray Data map function.

    A shard is a range of `order`, over all tasks, so what it holds does not depend on any other shard.
    """
    split, number = row["split"], row["number"]
    rows = _shard_rows(job, split, number)
    packed = pack(rows, job.seq_len, job.pad_id)
    data = packed_shards.to_ipc(*packed)
    path = shard_path(split, number)
    storage.write_bytes(storage.join(job.out, path), data)
    return {
        "path": path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "rows": len(packed[0]),
        "examples": len(rows),
        "tokens": sum(len(r.input_ids) for r in rows),
        "labels": sum(len(r.input_ids) - r.num_prompt for r in rows),
    }


def _shard_rows(job: ShardJob, split: str, number: int) -> list[TokenRow]:
    """The tokens with `order` in the shard's range, by ascending `order`; what is too long is not among them."""
    low, high = (-(-(n << 63) // job.shards[split]) for n in (number, number + 1))
    columns = ["id", "order", "num_prompt", "input_ids"]
    tables = []
    for share in job.shares:
        chosen = [("order", ">=", low), ("order", "<=", high - 1), ("rank", "<", share.quotas[split])]
        tables.append(tokenization.read(share.tokens, split, columns, chosen))
    table = pa.concat_tables(tables).sort_by([("order", "ascending"), ("id", "ascending")]).combine_chunks()
    if not len(table):
        return []
    ids = table["input_ids"].chunk(0)
    values, offsets = ids.flatten().to_numpy(), np.asarray(ids.offsets) - ids.offsets[0].as_py()
    starts = zip(offsets[:-1], offsets[1:], table["num_prompt"].to_pylist(), strict=True)
    return [TokenRow(values[start:end], num_prompt) for start, end, num_prompt in starts if end > start]


def split_totals(packed: list[Row], seq_len: int) -> dict[str, Row]:
    """Per split: rows, examples, tokens, learned tokens, packing efficiency and its shards."""
    splits: dict[str, Row] = {
        split: {"rows": 0, "examples": 0, "tokens": 0, "labels": 0, "shards": []} for split in SPLITS
    }
    for row in packed:
        split = splits[row["path"].partition("/")[0]]
        for key in ("rows", "examples", "tokens", "labels"):
            split[key] += row[key]
        split["shards"].append({key: row[key] for key in ("path", "rows", "examples", "sha256")})
    for split in splits.values():
        split["packing_efficiency"] = round(split["tokens"] / (split["rows"] * seq_len), 4) if split["rows"] else 0.0
    return splits
