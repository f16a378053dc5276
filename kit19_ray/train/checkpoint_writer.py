"""Writes checkpoints beside the training: the state is copied, and a thread sends the copy to the store.

Every rank sends its own shard, then a note that it is there. Rank 0 writes the index when it has seen all the notes:
the ranks meet in the store alone, so none waits for another in a collective that an outage would hang. One checkpoint
is on its way at a time; while the store is out, the thread goes on trying and the training goes on.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, BinaryIO, cast

import torch

from kit19_ray.artifacts import checkpoint
from kit19_ray.artifacts.checkpoint import CheckpointIndex, Folder, Shard
from kit19_ray.errors import StorageError
from kit19_ray.io import storage
from kit19_ray.redaction import first_line
from kit19_ray.train.state_pieces import KINDS, Piece

_READ = 1 << 20  # bytes read from a tensor at once
_RETRY_SECONDS = (1.0, 30.0)  # first and longest pause after a failure
_POLL_SECONDS = {"file": 0.05, "s3": 1.0}  # of rank 0, for the notes


class CheckpointWriter:
    """One rank's part of every checkpoint of an attempt.

    Args:
        out: the run's prefix.
        attempt: names this start of the workers.
        say: takes what the user should know; any thread may call it.
        keep, keep_best: see `checkpoint.to_keep`.
    """

    def __init__(
        self, out: str, attempt: str, rank: int, world_size: int, say: Callable[[str], None], keep: int, keep_best: int
    ) -> None:
        self._out, self._attempt, self._rank, self._world = out, attempt, rank, world_size
        self._say, self._keep, self._keep_best = say, keep, keep_best
        self.spared: Callable[[], Collection[int]] = tuple
        """Steps whose checkpoints stay whatever `keep` says; asked in the thread."""
        self._thread: threading.Thread | None = None
        self._copies: dict[tuple[str, str], torch.Tensor] = {}
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self.failing_since: float | None = None
        """Since when the store has refused, on `time.monotonic`'s clock; None while it does not."""
        self.saved_step = -1
        """The last step whose checkpoint is whole (rank 0), or whose shard is there (others)."""

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is on its way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, pieces: list[Piece], index: CheckpointIndex) -> None:
        """Copies the pieces and sends them to the store in a thread; waits for the one before.

        Args:
            index: all but its shards.
        """
        self.wait()
        copies = [(piece, {kind: self._copy(piece, kind) for kind in KINDS}) for piece in pieces]
        if any(piece.tensors["w"].is_cuda for piece in pieces):
            torch.cuda.current_stream().synchronize()
        at = checkpoint.folder(index["step"], self._attempt)
        self._thread = threading.Thread(target=self._run, args=(at, copies, index), name="checkpoint", daemon=True)
        self._thread.start()

    def _copy(self, piece: Piece, kind: str) -> torch.Tensor:
        """The tensor's values in memory that is kept from one checkpoint to the next; pinned for a GPU's."""
        source = piece.tensors[kind]
        key = (piece.name, kind)
        held = self._copies.get(key)
        if held is None:
            held = self._copies[key] = torch.empty(len(source), dtype=torch.float32, pin_memory=source.is_cuda)
        return held.copy_(source, non_blocking=True)

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for the checkpoint on its way; returns whether there is none any more.

        Raises:
            RuntimeError: the thread failed for another reason than the store.
        """
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
        if self._failed is not None:
            raise RuntimeError(f"writing a checkpoint failed: {self._failed!r}") from self._failed
        return True

    def close(self) -> None:
        """Gives up what is on its way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)

    def _run(self, at: Folder, copies: list[tuple[Piece, dict[str, torch.Tensor]]], index: CheckpointIndex) -> None:
        try:
            path = f"shard-{self._rank:05d}"
            shard = self._insist(lambda: _send(self._out, at, f"{path}.safetensors", copies))
            note = storage.join(at.uri(self._out), f"{path}.json")
            self._insist(lambda: storage.write_text(note, json.dumps(shard)))
            if self._rank == 0:
                index = {**index, "shards": self._insist(lambda: self._gather(at))}
                self._insist(lambda: checkpoint.write_index(self._out, at, index))
            self.saved_step = at.step
            if self._rank == 0:
                self._insist(lambda: self._tidy(at))
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by `wait`, in the thread that trains
            self._failed = error

    def _insist(self, action: Callable[[], Any]) -> Any:
        """Tries until the store takes it."""
        pause = _RETRY_SECONDS[0]
        while True:
            if self._stop.is_set():
                raise _Stopped
            try:
                result = action()
            except (StorageError, OSError) as error:
                if self.failing_since is None:
                    self.failing_since = time.monotonic()
                    self._say(f"worker {self._rank}: a checkpoint does not get through, trying on: {first_line(error)}")
                self._stop.wait(pause)
                pause = min(2 * pause, _RETRY_SECONDS[1])
            else:
                if self.failing_since is not None:
                    self._say(f"worker {self._rank}: the store takes checkpoints again")
                self.failing_since = None
                return result

    def _gather(self, at: Folder) -> list[Shard]:
        """What every rank noted of its shard; waits for those that are not there yet."""
        uri = at.uri(self._out)
        names = {f"shard-{rank:05d}.json" for rank in range(self._world)}
        while not names <= {file.path for file in storage.list_files(uri)}:
            if self._stop.wait(_POLL_SECONDS[uri.split("://")[0]]):
                raise _Stopped
        return [json.loads(storage.read_text(storage.join(uri, name))) for name in sorted(names)]

    def _tidy(self, at: Folder) -> None:
        for file in storage.list_files(at.uri(self._out)):
            if file.path.startswith("shard-") and file.path.endswith(".json"):
                storage.delete(storage.join(at.uri(self._out), file.path))
        checkpoint.prune(self._out, self._keep, self._keep_best, self.spared())


class _Stopped(Exception):
    """The writer was closed."""


def _send(out: str, at: Folder, path: str, copies: list[tuple[Piece, dict[str, torch.Tensor]]]) -> Shard:
    tensors = [(piece.name, kind, piece.start, values[kind]) for piece, values in copies for kind in KINDS]
    header = checkpoint.to_header((name, kind, start, len(tensor)) for name, kind, start, tensor in tensors)
    stream = HashingStream([memoryview(header), *(t.numpy().data.cast("B") for *_, t in tensors)])
    storage.write_stream(storage.join(at.uri(out), path), cast(BinaryIO, io.BufferedReader(stream, _READ)))
    return stream.shard(path)


class HashingStream(io.RawIOBase):
    """Reads buffers one after the other, and hashes what is read: the shard is sent without a second copy.

    It may be read again, from the beginning: then it is hashed anew.
    """

    def __init__(self, buffers: list[memoryview], block: int = checkpoint.BLOCK) -> None:
        self._buffers = [buffer for buffer in buffers if len(buffer)]
        self._length = sum(map(len, self._buffers))
        self._block = block
        self._place = 0  # where the reader is; `_size` bytes are hashed
        self._begin()

    def _begin(self) -> None:
        self._whole, self._part = hashlib.sha256(), hashlib.sha256()
        self._blocks: list[str] = []
        self._in_block = self._size = self._number = self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """To the end, to learn the length, and back to where it was or to the beginning."""
        return True

    def tell(self) -> int:
        """Where the reader is."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes there."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        return self._place

    def readinto(self, target: Any) -> int:
        """Fills `target` as far as the buffer at hand, and the block at hand, go."""
        if self._place >= self._length:
            return 0
        if self._place != self._size:
            if self._place:
                raise io.UnsupportedOperation("a shard is read in order")
            self._begin()
        buffer = self._buffers[self._number]
        length = min(len(target), len(buffer) - self._at, self._block - self._in_block)
        data = buffer[self._at : self._at + length]
        target[:length] = data
        self._whole.update(data)
        self._part.update(data)
        self._at += length
        self._size += length
        self._place += length
        self._in_block += length
        if self._in_block == self._block:
            self._end_block()
        if self._at == len(buffer):
            self._number, self._at = self._number + 1, 0
        return length

    def _end_block(self) -> None:
        self._blocks.append(self._part.hexdigest())
        self._part, self._in_block = hashlib.sha256(), 0

    def shard(self, path: str) -> Shard:
        """What the index says of it, when all was read."""
        if self._in_block:
            self._end_block()
        return {"path": path, "size": self._size, "sha256": self._whole.hexdigest(), "blocks": self._blocks}
