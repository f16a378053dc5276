"""Takes up a checkpoint: each rank reads the ranges it needs, whatever number of ranks wrote them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from kit19_ray.artifacts.checkpoint import CheckpointIndex, CorruptCheckpoint, Folder, ShardReader, TensorEntry
from kit19_ray.train.state_pieces import KINDS, Piece

_Values = list[dict[str, torch.Tensor]]


def read(out: str, at: Folder, index: CheckpointIndex, pieces: list[Piece]) -> _Values:
    """The values of `pieces` in the checkpoint `at`, float32 on the CPU, by KINDS.

    Nothing of the model is touched: whether all ranks could read theirs is for the caller to find out first.

    Raises:
        CorruptCheckpoint: something is missing or altered.
        StorageError: the store does not answer.
    """
    table = _table(out, at, index)
    values: _Values = []
    for piece in pieces:
        if index["parameters"].get(piece.name) != piece.numel:
            raise CorruptCheckpoint(
                f"{at.name} has {index['parameters'].get(piece.name)} elements of {piece.name}, not {piece.numel}"
            )
        values.append(
            {kind: _range(table[piece.name, kind], piece.name, kind, piece.start, len(piece)) for kind in KINDS}
        )
    return values


def weights(out: str, at: Folder, index: CheckpointIndex) -> Iterator[tuple[str, torch.Tensor]]:
    """Every trained weight of the checkpoint `at`, whole: its name and float32 `[elements]` on the CPU.

    Raises:
        CorruptCheckpoint: something is missing or altered.
        StorageError: the store does not answer.
    """
    table = _table(out, at, index)
    for name, numel in index["parameters"].items():
        yield name, _range(table[name, "w"], name, "w", 0, numel)


def write(values: _Values, pieces: list[Piece]) -> None:
    """Writes what `read` gave into the optimizer's memory."""
    for piece, by_kind in zip(pieces, values, strict=True):
        for kind, value in by_kind.items():
            piece.tensors[kind].copy_(value)


_Table = dict[tuple[str, str], list[tuple[TensorEntry, ShardReader]]]


def _table(out: str, at: Folder, index: CheckpointIndex) -> _Table:
    """Where each parameter's pieces lie, by name and kind."""
    table: _Table = defaultdict(list)
    for shard in index["shards"]:
        reader = ShardReader(out, at, shard, index["block"])
        for entry in reader.entries():
            table[entry.name, entry.kind].append((entry, reader))
    return table


def _range(
    sources: list[tuple[TensorEntry, ShardReader]], name: str, kind: str, start: int, length: int
) -> torch.Tensor:
    out = np.empty(length, np.float32)
    end, filled = start + length, 0
    for entry, reader in sources:
        low, high = max(start, entry.start), min(end, entry.start + entry.numel)
        if low >= high:
            continue
        data = reader.read(entry.offset + 4 * (low - entry.start), 4 * (high - low))
        out[low - start : high - start] = np.frombuffer(data, np.float32)
        filled += high - low
    if filled != length:
        raise CorruptCheckpoint(f"of {name}|{kind} {length - filled} elements are in no shard")
    return torch.from_numpy(out)
