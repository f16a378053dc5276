"""How a run with scored checkpoints ends: the last scores are waited for, and the best checkpoint is taken up."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from kit19_ray.artifacts.stage_manifests import BestEntry
from kit19_ray.train.agreement import Agreement
from kit19_ray.train.candidates import CheckpointCandidates
from kit19_ray.train.engine import TrainEngine
from kit19_ray.train.flags import ENOUGH, REPORT, STOP
from kit19_ray.train.restore import take_up
from kit19_ray.train.saver import Saver
from kit19_ray.train.spec import TrainSpec
from kit19_ray.train.train_state import TrainState

_POLL_SECONDS = 0.5


def wait_for_scores(
    candidates: CheckpointCandidates, saver: Saver, agreement: Agreement, dtype: str, look: Callable[[], int]
) -> bool:
    """Waits until the best checkpoint is known; all ranks must call it.

    Args:
        dtype: of the export's weights.
        look: shows that the worker is alive, and returns what it is asked for meanwhile.

    Returns:
        False when it was asked to stop before; every checkpoint is saved then.
    """
    while True:
        flags = agreement.flags(look() & STOP | candidates.flags(saver.saved_step))
        if flags & REPORT:
            candidates.report(dtype)
        if flags & ENOUGH:
            return True
        if flags & STOP:
            saver.wait()
            return False
        time.sleep(_POLL_SECONDS)


def take_best(
    spec: TrainSpec,
    engine: TrainEngine,
    state: TrainState,
    candidates: CheckpointCandidates,
    agreement: Agreement,
    phase: Callable[[str], AbstractContextManager[None]],
) -> tuple[BestEntry | None, list[str]]:
    """Fills `engine` and `state` from the best checkpoint; leaves them at the last step where that is best.

    Returns:
        What the manifest says of the choice, at rank 0, and what the user should know.
    """
    last, seconds = state.step, state.figures["seconds"]
    with phase("finding the best checkpoint"):
        ranked = candidates.ranked() if agreement.rank == 0 else []
    places = [at.step for at, _ in ranked]
    better = ranked[: places.index(last)] if last in places else ranked
    said = take_up(spec.out, better, engine, state, agreement, phase)
    state.figures["seconds"] = seconds  # of the whole run
    if agreement.rank:
        return None, said
    if not candidates.choice().ranked:
        said.append(f"no checkpoint has a score: the last step, {last}, is exported")
    elif state.step != last:
        said.append(f"exports step {state.step}, the best of {len(candidates.choice().ranked)}")
    return candidates.record(state.step, last), said
