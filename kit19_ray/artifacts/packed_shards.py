"""Packed shards: Arrow IPC files of fixed-length rows, read by index.

A row's place follows from its number alone, so a training step can ask for any rows in any order, and a resumed run
seeks instead of replaying.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.schemas import IGNORE, packed_schema
from kit19_ray.errors import DataError, quote
from kit19_ray.io import node_cache, storage

Int32 = npt.NDArray[np.int32]
COLUMNS = ("input_ids", "labels", "position_ids")


def to_ipc(input_ids: Int32, labels: Int32, position_ids: Int32) -> bytes:
    """The bytes of a shard file.

    Args:
        input_ids, labels, position_ids: int32 `[rows, seq_len]`.
    """
    schema = packed_schema(input_ids.shape[1])
    columns: list[pa.Array] = [
        pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(a).reshape(-1)), a.shape[1])
        for a in (input_ids, labels, position_ids)
    ]
    columns.append(pa.array((labels != IGNORE).sum(axis=1).astype(np.int32)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return bytes(sink.getvalue())


def tasks_path(shard: str) -> str:
    """The file beside a shard of the validation split that has the tasks of its examples."""
    return f"{shard.removesuffix('.arrow')}.tasks.json"


def tasks_to_json(tasks: Sequence[Sequence[str]]) -> str:
    """The text of that file.

    Args:
        tasks: by packed row, the task of each of its examples in their order.
    """
    names = sorted({task for row in tasks for task in row})
    number = {name: at for at, name in enumerate(names)}
    return json.dumps({"tasks": names, "rows": [[number[task] for task in row] for row in tasks]})


def read_tasks(data_uri: str, split: str) -> list[list[str]] | None:
    """The task of each example of a split's packed rows; None where a shard has no such file: an older build's."""
    found: list[list[str]] = []
    for shard in manifest.require(data_uri, "data")["splits"][split]["shards"]:
        uri = storage.join(data_uri, tasks_path(shard["path"]))
        if not storage.exists(uri):
            return None
        told = json.loads(storage.read_text(uri))
        found += [[told["tasks"][number] for number in row] for row in told["rows"]]
    return found


@dataclass(frozen=True)
class _Shard:
    columns: tuple[Int32, Int32, Int32]  # each [rows, seq_len], memory-mapped
    num_labels: Int32


class PackedSplit:
    """One split of a data prefix, by row number.

    Attributes:
        seq_len: tokens per row.
        num_labels: int32 `[rows]`, learned tokens of each row.
    """

    def __init__(self, shards: Sequence[_Shard], seq_len: int) -> None:
        self._shards = shards
        self.seq_len = seq_len
        counts = [len(s.num_labels) for s in shards]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.num_labels: Int32 = np.concatenate([s.num_labels for s in shards]) if shards else np.zeros(0, np.int32)

    @classmethod
    def open(cls, data_uri: str, split: str) -> PackedSplit:
        """Maps the split's shards into memory; remote ones are copied to this node once, and each is hashed there once.

        Raises:
            StorageError: `data_uri` is not a finished data prefix, or a shard's bytes are not the manifest's.
            DataError: it has no such split.
        """
        built = manifest.require(data_uri, "data")
        if split not in built["splits"]:
            raise DataError(f"{data_uri} has no split {quote(split)}, only {', '.join(sorted(built['splits']))}")
        shards = [
            _map(node_cache.local_file(storage.join(data_uri, s["path"]), s["sha256"]), built["seq_len"], s["path"])
            for s in built["splits"][split]["shards"]
        ]
        return cls(shards, built["seq_len"])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, Int32]:
        """Copies of the rows `indices`: `input_ids`, `labels`, `position_ids`, each int32 `[len(indices), seq_len]`."""
        wanted = np.asarray(indices, np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"row {int(wanted.max())} of a split with {len(self)} rows")
        out = {name: np.empty((len(wanted), self.seq_len), np.int32) for name in COLUMNS}
        of_shard = np.searchsorted(self._starts, wanted, side="right") - 1
        for place, (row, shard) in enumerate(zip(wanted, of_shard, strict=True)):
            for name, column in zip(COLUMNS, self._shards[shard].columns, strict=True):
                out[name][place] = column[row - self._starts[shard]]
        return out


def _map(path: Path, seq_len: int, name: str) -> _Shard:
    with pa.memory_map(str(path)) as source:
        batches = pa.ipc.open_file(source)
        if batches.num_record_batches != 1:
            raise DataError(f"{name}: a shard is one record batch, this has {batches.num_record_batches}")
        batch = batches.get_batch(0)
    columns = tuple(
        np.asarray(batch.column(c).flatten().to_numpy(zero_copy_only=True)).reshape(-1, seq_len) for c in COLUMNS
    )
    return _Shard((columns[0], columns[1], columns[2]), batch.column("num_labels").to_numpy(zero_copy_only=True))
