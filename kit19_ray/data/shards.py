"""Tokens -> packed shards. A shard is a range of `order` over all tasks, so what it holds depends on no other shard.

tokens, by task     |   part 0    |   part 1    |              ranges of `order`, as many as the task needs
shards              |  0  |  1  |  2  |  3  |  4  |             ranges of `order`, equal for all tasks
a Ray task          |  run of shards  |  next run  |           reads each part that it meets once
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kit19_ray.artifacts import packed_shards
from kit19_ray.artifacts.data_manifests import ShardEntry, SplitEntry
from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.data import rendering, tokenize
from kit19_ray.data.export import MixtureEntry
from kit19_ray.data.packing import TokenRow, assign, pack, pieces
from kit19_ray.data.record_pool import SPLITS
from kit19_ray.io import storage

MOST = 16  # shards that one task packs: it holds the tokens of all of them
_COLUMNS = ["id", "task", "order", "num_prompt", "later", "input_ids"]


class ShardCounts(ShardEntry):
    """A shard as the manifest lists it, and what it holds; `labels` are the learned tokens."""

    tokens: int
    labels: int


@dataclass(frozen=True)
class Packing:
    """How a mixture becomes shards; `shards` is the number of files by split."""

    out: str
    entries: Sequence[MixtureEntry]
    seq_len: int
    pad_id: int
    shards: Mapping[str, int]


def shard_path(split: str, number: int) -> str:
    """Where a shard is, below the data prefix."""
    return f"{split}/shard-{number:05d}.arrow"


def runs(shards: Mapping[str, int], cpus: int) -> list[tuple[str, int, int]]:
    """The shards in runs (split, first, end): few enough that parts are read few times, enough for every CPU."""
    found = []
    for split, num in shards.items():
        length = max(1, min(MOST, num // (2 * cpus)))
        found += [(split, first, min(first + length, num)) for first in range(0, num, length)]
    return found


def build(packing: Packing, run: tuple[str, int, int]) -> list[ShardCounts]:
    """Packs and writes a run of shards."""
    split, first, end = run
    num = packing.shards[split]
    bounds = [-(-(n << 63) // num) for n in range(first, end + 1)]
    table = _tokens(packing, split, bounds[0], bounds[-1])
    orders = table["order"].to_numpy()
    edges = [int(np.searchsorted(orders, bound)) for bound in bounds[:-1]] + [len(orders)]  # 2^63 is no int64
    return [
        _write(packing, split, first + n, list(_rows(table.slice(low, high - low))))
        for n, (low, high) in enumerate(itertools.pairwise(edges))
    ]


def _tokens(packing: Packing, split: str, low: int, high: int) -> pa.Table:
    """The tokens with low <= `order` < high of every task, by ascending `order`."""
    tables = []
    for entry in packing.entries:
        chosen = [("order", ">=", low), ("order", "<=", high - 1), ("rank", "<", entry.quotas[split])]
        for number in range(entry.parts[split]):
            start, end = rendering.order_range(number, entry.parts[split])
            if start < high and low < end:
                uri = storage.join(entry.tokens, rendering.part_path(split, number))
                tables.append(tokenize.read(uri, _COLUMNS, chosen))
    return pa.concat_tables(tables).sort_by([("order", "ascending"), ("id", "ascending")])


def _rows(table: pa.Table) -> Iterator[tuple[str, TokenRow]]:
    """Token rows of a table with their tasks; what is too long has no tokens and is not among them."""
    if not len(table):
        return
    ids = table["input_ids"].combine_chunks()
    ids = ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids
    values, offsets = ids.flatten().to_numpy(), np.asarray(ids.offsets) - ids.offsets[0].as_py()
    prompts, later, tasks = (table[name].to_pylist() for name in ("num_prompt", "later", "task"))
    for start, end, num_prompt, runs, task in zip(offsets[:-1], offsets[1:], prompts, later, tasks, strict=True):
        if end > start:
            yield task, TokenRow(values[start:end], num_prompt, tuple(runs))


def _write(packing: Packing, split: str, number: int, named: list[tuple[str, TokenRow]]) -> ShardCounts:
    path, rows = shard_path(split, number), [row for _, row in named]
    cut = [(task, piece) for task, row in named for piece in pieces(row, packing.seq_len)]
    packed = pack([piece for _, piece in cut], packing.seq_len, packing.pad_id)
    data = packed_shards.to_ipc(*packed)
    storage.write_bytes(storage.join(packing.out, path), data)
    if split == "validation":  # whose loss is told task by task
        bins = assign([len(piece.input_ids) for _, piece in cut], packing.seq_len)
        tasks = packed_shards.tasks_to_json([[cut[item][0] for item in items] for items in bins])
        storage.write_text(storage.join(packing.out, packed_shards.tasks_path(path)), tasks)
    return {
        "path": path,
        "sha256": hashlib.sha256(data).hexdigest(),
        "rows": len(packed[0]),
        "examples": len(rows),
        "tokens": sum(len(r.input_ids) for r in rows),
        "labels": int((packed[1] != IGNORE).sum()),
    }


def split_totals(packed: Sequence[ShardCounts], seq_len: int) -> dict[str, SplitEntry]:
    """Per split: rows, examples, tokens, learned tokens, packing efficiency and its shards."""
    splits: dict[str, SplitEntry] = {}
    for name in SPLITS:
        mine = sorted((s for s in packed if s["path"].startswith(f"{name}/")), key=lambda s: s["path"])
        rows, tokens = sum(s["rows"] for s in mine), sum(s["tokens"] for s in mine)
        splits[name] = {
            "rows": rows,
            "examples": sum(s["examples"] for s in mine),
            "tokens": tokens,
            "labels": sum(s["labels"] for s in mine),
            "packing_efficiency": round(tokens / (rows * seq_len), 4) if rows else 0.0,
            "shards": [
                {"path": s["path"], "rows": s["rows"], "examples": s["examples"], "sha256": s["sha256"]} for s in mine
            ],
        }
    return splits
