"""Takes up a checkpoint: each rank reads the ranges it needs, whatever number of ranks wrote them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from kit19_ray.artifacts.checkpoint import CorruptCheckpoint, Entry, Folder, Index, ShardReader
from kit19_ray.train.state_pieces import KINDS, Piece

_Values = list[dict[str, torch.Tensor]]


def read(out: str, at: Folder, index: Index, pieces: list[Piece]) -> _Values:
    """The values of `pieces` in the checkpoint `at`, float32 on the CPU, by KINDS.

    Nothing of the model is touched: whether all ranks could read theirs is for the caller to find out first.

    Raises:
        CorruptCheckpoint: something is missing or altered.
        StorageError: the store does not answer.
    """
    readers = [ShardReader(out, at, shard, index["block"]) for shard in index["shards"]]
    table: dict[tuple[str, str], list[tuple[Entry, ShardReader]]] = defaultdict(list)
    for reader in readers:
        for entry in reader.entries():
            table[entry.name, entry.kind].append((entry, reader))
    values: _Values = []
    for piece in pieces:
        if index["parameters"].get(piece.name) != piece.numel:
            raise CorruptCheckpoint(
                f"{at.name} has {index['parameters'].get(piece.name)} elements of {piece.name}, not {piece.numel}"
            )
        values.append({kind: _range(table[piece.name, kind], piece, kind) for kind in KINDS})
    return values


def write(values: _Values, pieces: list[Piece]) -> None:
    """Writes what `read` gave into the optimizer's memory."""
    for piece, by_kind in zip(pieces, values, strict=True):
        for kind, value in by_kind.items():
            piece.tensors[kind].copy_(value)


def _range(sources: list[tuple[Entry, ShardReader]], piece: Piece, kind: str) -> torch.Tensor:
    out = np.empty(len(piece), np.float32)
    end, filled = piece.start + len(piece), 0
    for entry, reader in sources:
        low, high = max(piece.start, entry.start), min(end, entry.start + entry.numel)
        if low >= high:
            continue
        data = reader.read(entry.offset + 4 * (low - entry.start), 4 * (high - low))
        out[low - piece.start : high - piece.start] = np.frombuffer(data, np.float32)
        filled += high - low
    if filled != len(piece):
        raise CorruptCheckpoint(f"of {piece.name}|{kind} {len(piece) - filled} elements are in no shard")
    return torch.from_numpy(out)
