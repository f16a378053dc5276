"""Checkpoints of a run: a table of pieces of parameters, spread over files, with an index that is written last.

    <run>/checkpoints/00000120-3f9a1c/      step, and the attempt that wrote it
      shard-00000.safetensors               one a worker: pieces of the float32 weights (w) and both moments (m, v)
      shard-00000.json                      its size and hashes, when it is whole; gone once the index is there
      index.json                            the commit marker: without it the folder is no checkpoint

A piece is a run of consecutive elements of a flattened parameter; its tensor is named `<parameter>|<kind>|<start>`. So
any number of workers can read what it needs, whatever number wrote it. A shard is hashed in blocks, which lets a reader
check the ranges it reads without reading the rest.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from kit19_ray.artifacts.manifest import canonical
from kit19_ray.errors import StorageError
from kit19_ray.io import storage
from kit19_ray.utils.json_types import Json

FOLDER, INDEX = "checkpoints", "index.json"
FORMAT = 1
BLOCK = 4 << 20  # bytes hashed together: what a reader reads beyond its own at most, at each end of a range
_LENGTH = struct.Struct("<Q")  # before a safetensors file's header


class CorruptCheckpoint(Exception):
    """A checkpoint that cannot be read whole: a file is missing, short, or not the one that was written."""


class Shard(TypedDict):
    """A file of a checkpoint: `blocks` are the SHA-256 of each BLOCK bytes, `sha256` that of all."""

    path: str
    size: int
    sha256: str
    blocks: list[str]


class GuardState(TypedDict):
    """What `train.guard` knows of the gradients so far."""

    skipped: int
    in_a_row: int
    norms: list[float]


class RunState(TypedDict):
    """What a run carries from step to step beside weights and optimizer, see `train.train_state`."""

    loss: float
    labels: int
    figures: dict[str, float]
    guard: GuardState


class CheckpointIndex(TypedDict):
    """index.json: `state` is what the trainer carries, `parameters` the elements of each parameter."""

    format: int
    step: int
    time: float
    validation_loss: float | None
    workers: int
    zero_stage: int
    state: RunState
    parameters: dict[str, int]
    block: int
    shards: list[Shard]


@dataclass(frozen=True, order=True)
class Folder:
    """A folder below `checkpoints/`."""

    step: int
    name: str

    def uri(self, out: str) -> str:
        """Its URI in the run `out`."""
        return storage.join(out, FOLDER, self.name)


def folder(step: int, attempt: str) -> Folder:
    """The folder that `attempt` writes step `step` into. Attempts do not share folders: a dead one may still write."""
    return Folder(step, f"{step:08d}-{attempt}")


def folders(out: str) -> list[Folder]:
    """All folders, whole or not, the furthest step first."""
    found = []
    for name in storage.list_dirs(storage.join(out, FOLDER)):
        step, dash, _ = name.partition("-")
        if dash and step.isdigit():
            found.append(Folder(int(step), name))
    return sorted(found, reverse=True)


def read_index(out: str, at: Folder) -> CheckpointIndex | None:
    """The folder's index, None when it was never finished.

    Raises:
        CorruptCheckpoint: it cannot be read as one.
    """
    path = storage.join(at.uri(out), INDEX)
    if not storage.exists(path):
        return None
    try:
        found: CheckpointIndex = json.loads(storage.read_text(path))
        if found["format"] != FORMAT or found["step"] != at.step or not found["shards"]:
            raise CorruptCheckpoint(f"{path} is not of format {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpoint(f"{path} is no index: {error}") from None
    return found


def newest(out: str) -> CheckpointIndex | None:
    """The index of the furthest checkpoint that has one; for who only wants to know."""
    for at in folders(out):
        try:
            found = read_index(out, at)
        except CorruptCheckpoint:
            continue
        if found is not None:
            return found
    return None


def write_index(out: str, at: Folder, index: CheckpointIndex) -> None:
    """Commits the checkpoint. Call it when every shard is in place."""
    storage.write_bytes(storage.join(at.uri(out), INDEX), canonical(index) + b"\n")


def to_keep(
    found: dict[Folder, CheckpointIndex | None], newest_kept: int, best_kept: int, spared: Collection[int] = ()
) -> set[Folder]:
    """Which folders stay: the furthest, those with the lowest validation loss, and unfinished ones further than all.

    Args:
        found: every folder with its index, None where it has none.
        spared: steps whose whole checkpoints stay besides.
    """
    # Unfinished folders behind the newest whole one are leavings; ahead of it a worker may be writing right now.
    whole = sorted((at for at, index in found.items() if index is not None), reverse=True)
    scored = [(float(i["validation_loss"]), at) for at, i in found.items() if i and i["validation_loss"] is not None]
    keep = set(whole[:newest_kept]) | {at for _, at in sorted(scored)[:best_kept]}
    keep |= {at for at in whole if at.step in spared}
    front = whole[0].step if whole else -1
    return keep | {at for at, index in found.items() if index is None and at.step > front}


def prune(out: str, newest_kept: int, best_kept: int, spared: Collection[int] = ()) -> list[Folder]:
    """Deletes the folders that `to_keep` does not name; returns them."""
    found: dict[Folder, CheckpointIndex | None] = {}
    for at in folders(out):
        try:
            found[at] = read_index(out, at)
        except CorruptCheckpoint:
            found[at] = None
    gone = sorted(set(found) - to_keep(found, newest_kept, best_kept, spared))
    for at in gone:
        discard(out, at)
    return gone


def discard(out: str, at: Folder) -> None:
    """Deletes a folder, its index first: what is left when that is interrupted is no checkpoint."""
    # Index first: a reader between the two deletions must find no checkpoint rather than half of one.
    storage.delete(storage.join(at.uri(out), INDEX))
    storage.delete(at.uri(out))


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of a shard: `offset` is where its bytes begin, counted from the file's."""

    name: str
    kind: str
    start: int
    numel: int
    offset: int


def to_header(pieces: Iterable[tuple[str, str, int, int]]) -> bytes:
    """The header of a safetensors file of float32 tensors (parameter, kind, start, elements), in that order."""
    # safetensors' own layout, so that any reader of that format can open a shard.
    table: Json = {}
    at = 0
    for name, kind, start, numel in pieces:
        table[f"{name}|{kind}|{start}"] = {"dtype": "F32", "shape": [numel], "data_offsets": [at, at + 4 * numel]}
        at += 4 * numel
    text = json.dumps(table, separators=(",", ":")).encode()
    # Padded to 8 bytes, as safetensors does: tensors behind it are then aligned for memory maps.
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text


def from_header(data: bytes) -> list[TensorEntry]:
    """The tensors of a header, its length before it included."""
    begin = len(data)
    out = []
    for key, entry in json.loads(data[_LENGTH.size :]).items():
        name, kind, start = key.rsplit("|", 2)
        first, last = entry["data_offsets"]
        out.append(TensorEntry(name, kind, int(start), (last - first) // 4, begin + first))
    return out


class ShardReader:
    """Ranges of a shard, each checked against the index.

    Raises:
        CorruptCheckpoint: from every method, when the file is missing, short or altered.
    """

    def __init__(self, out: str, at: Folder, shard: Shard, block: int) -> None:
        self._uri = storage.join(at.uri(out), shard["path"])
        self._shard, self._block = shard, block
        self._file: Any = None
        self._held: tuple[int, bytes] = (-1, b"")  # the last block read, and its number: ranges follow one another

    def entries(self) -> list[TensorEntry]:
        """The tensors in it."""
        (length,) = _LENGTH.unpack(self.read(0, _LENGTH.size))
        return from_header(self.read(0, _LENGTH.size + length))

    def read(self, begin: int, length: int) -> bytes:
        """The bytes `begin` to `begin + length` of the file."""
        # The index was committed with this size, so a range beyond it is damage, never a race.
        if begin + length > self._shard["size"]:
            raise CorruptCheckpoint(f"{self._uri} is shorter than its own header says")
        first, last = begin // self._block, -(-(begin + length) // self._block)
        data = b"".join(self._blocks(first, last))
        return data[begin - first * self._block :][:length]

    def _blocks(self, first: int, last: int) -> Iterator[bytes]:
        # Ranges that follow one another share the block at their border: without this it would be read and hashed
        # twice.
        if self._held[0] == first:
            yield self._held[1]
            first += 1
        if first >= last:
            return
        raw = self._raw(first * self._block, min(last * self._block, self._shard["size"]) - first * self._block)
        for number in range(first, last):
            data = raw[(number - first) * self._block :][: self._block]
            if hashlib.sha256(data).hexdigest() != self._shard["blocks"][number]:
                raise CorruptCheckpoint(f"{self._uri}: block {number} is not the one that was written")
            self._held = (number, data)
            yield data

    def _raw(self, begin: int, length: int) -> bytes:
        try:
            if self._file is None:
                self._file = storage.open_input(self._uri)
            data = bytes(self._file.read_at(length, begin))
        except (StorageError, OSError) as error:
            if storage.exists(self._uri):
                raise StorageError(f"{self._uri}: {error}") from error
            raise CorruptCheckpoint(f"{self._uri} is missing") from None
        if len(data) < length:
            raise CorruptCheckpoint(f"{self._uri} has been cut off")
        return data
