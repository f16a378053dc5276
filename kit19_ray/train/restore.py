"""Takes up the furthest checkpoint that every rank can read. All ranks go through it in step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from kit19_ray.artifacts import checkpoint
from kit19_ray.artifacts.checkpoint import CheckpointIndex, CorruptCheckpoint, Folder
from kit19_ray.errors import StorageError
from kit19_ray.train import checkpoint_reader
from kit19_ray.train.agreement import Agreement
from kit19_ray.train.engine import TrainEngine
from kit19_ray.train.train_state import TrainState


def restore(
    out: str,
    engine: TrainEngine,
    state: TrainState,
    agreement: Agreement,
    phase: Callable[[str], AbstractContextManager[None]],
) -> list[str]:
    """Fills `engine` and `state` from the run `out`; leaves both as they are where it has no checkpoint.

    Args:
        phase: wraps what one rank can fail alone.

    Returns:
        What the user should know of checkpoints that were left out; of broken indexes, at rank 0 alone.
    """
    found: list[tuple[Folder, CheckpointIndex]] = []
    broken: list[str] = []
    with phase("looking for checkpoints"):
        if agreement.rank == 0:
            found, broken = _candidates(out)
    return broken + take_up(out, found, engine, state, agreement, phase)


def take_up(
    out: str,
    found: list[tuple[Folder, CheckpointIndex]],
    engine: TrainEngine,
    state: TrainState,
    agreement: Agreement,
    phase: Callable[[str], AbstractContextManager[None]],
) -> list[str]:
    """Fills `engine` and `state` from the first of these checkpoints that every rank can read; deletes those before it.

    Args:
        found: rank 0's count.

    Returns:
        What was wrong with those that were left out.
    """
    broken: list[str] = []
    for at, index in agreement.broadcast(found):
        reason, values = "", None
        with phase("reading a checkpoint"):
            pieces = engine.pieces()
            try:
                values = checkpoint_reader.read(out, at, index, pieces)
            except CorruptCheckpoint as error:
                reason = str(error)
        reasons = [text for text in agreement.gather(reason) if text]
        if not reasons and values is not None:
            with phase("taking up a checkpoint"):
                checkpoint_reader.write(values, pieces)
                state.restore(index["step"], index["state"])
                engine.finish_restore(pieces, state.step - state.guard.skipped)
            break
        broken.append(f"the checkpoint of step {at.step} is left out and deleted: {reasons[0]}")
        if agreement.rank == 0:
            with contextlib.suppress(StorageError):
                checkpoint.discard(out, at)
    return broken


def _candidates(out: str) -> tuple[list[tuple[Folder, CheckpointIndex]], list[str]]:
    """Checkpoints with a whole index, in the order in which they are tried, and what is wrong with the others."""
    found, broken = [], []
    for at in checkpoint.folders(out):
        try:
            index = checkpoint.read_index(out, at)
        except CorruptCheckpoint as error:
            broken.append(f"the checkpoint of step {at.step} is left out: {error}")
            continue
        if index is not None:
            found.append((at, index))
    return found, broken
