"""Faults in the middle of a save: the process dies between two writes of a checkpoint."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, cast, get_args

from kit19_ray.artifacts import checkpoint
from kit19_ray.io import storage

Point = Literal[
    "copying", "copied", "sending", "half sent", "sent", "noted", "gathered", "committed", "tidied", "pruning"
]
POINTS: tuple[Point, ...] = get_args(Point)
OF_RANK_0: tuple[Point, ...] = ("gathered", "committed", "tidied", "pruning")  # rank 0 alone is ever there


def kill_while_saving(point: Point, step: int, die: Callable[[], None]) -> None:
    """Calls `die` at one point of writing the checkpoint of `step`."""
    from kit19_ray.train.checkpoint_writer import CheckpointWriter

    def mine(uri: str) -> bool:
        return f"/{checkpoint.FOLDER}/{step:08d}-" in uri

    def before(owner: Any, name: str, ours: Callable[..., bool]) -> None:
        inner = getattr(owner, name)

        def wrapped(*args: Any) -> Any:
            if ours(*args):
                die()
            return inner(*args)

        setattr(owner, name, wrapped)

    def after(owner: Any, name: str, ours: Callable[..., bool]) -> None:
        inner = getattr(owner, name)

        def wrapped(*args: Any) -> Any:
            result = inner(*args)
            if ours(*args):
                die()
            return result

        setattr(owner, name, wrapped)

    def half(uri: str, source: BinaryIO) -> None:
        if mine(uri):
            source.seek(0, io.SEEK_END)
            length = source.tell()
            source.seek(0)
            storage.write_bytes(uri, source.read(length // 2))  # what a cut upload to a disk leaves
            die()
        write(uri, source)

    write = storage.write_stream
    if point == "copying":
        before(CheckpointWriter, "start", lambda _, pieces, index: index["step"] == step)
    elif point == "copied":
        before(CheckpointWriter, "_run", lambda _, at, *rest: at.step == step)
    elif point == "sending":
        before(storage, "write_stream", lambda uri, source: mine(uri))
    elif point == "half sent":
        storage.write_stream = half
    elif point == "sent":
        after(storage, "write_stream", lambda uri, source: mine(uri))
    elif point == "noted":
        after(storage, "write_text", lambda uri, text: mine(uri))
    elif point == "gathered":
        before(checkpoint, "write_index", lambda run, at, index: at.step == step)
    elif point == "committed":
        after(checkpoint, "write_index", lambda run, at, index: at.step == step)
    elif point == "tidied":
        before(checkpoint, "prune", lambda run, *kept: _is_there(run, step))
    else:
        _kill_while_pruning(die, step)


def _kill_while_pruning(die: Callable[[], None], step: int) -> None:
    """Once the first file of an old checkpoint is deleted."""
    discard = checkpoint.discard

    def half(out: str, at: checkpoint.Folder) -> None:
        if _is_there(out, step):
            storage.delete(storage.join(at.uri(out), checkpoint.INDEX))
            die()
        discard(out, at)

    checkpoint.discard = cast(Any, half)


def _is_there(out: str, step: int) -> bool:
    newest = checkpoint.newest(out)
    return newest is not None and newest["step"] == step
