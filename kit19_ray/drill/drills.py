"""The drills: what is done to a small training, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kit19_ray.drill.faults import Fault
from kit19_ray.drill.save_faults import POINTS, Point

STEPS, SAVE_EVERY = 12, 3
_AT = 8  # the step after which it happens: the checkpoint of step 6 is there, or on its way
_PRUNED = 9  # the first step whose checkpoint makes an old one go: two are kept
_SAVED = 6  # the step whose checkpoint is being written when it happens there

SLOW = Fault("slow", seconds=0.5)  # so that what is done from outside is done in mid-training
Outside = Literal["driver", "node", "drained node", "growth"]


@dataclass(frozen=True)
class Drill:
    """One row of the table.

    Attributes:
        done: what is done, for a reader.
        fault: in a worker.
        outside: what is done from the driver's side instead.
        lost_at_most: steps that may have to be made again.
        restarts: whether the workers are started again.
        same_workers: whether they are as many afterwards, so that the weights must be equal to the bit.
        local: needs a cluster of two nodes that is there for it.
        skipped_steps: steps that must have been left out.
    """

    name: str
    done: str
    fault: Fault
    outside: Outside | None = None
    lost_at_most: int = _AT - SAVE_EVERY
    restarts: bool = True
    same_workers: bool = True
    steps: int = STEPS
    local: bool = False
    skipped_steps: int = 0

    @property
    def same_weights(self) -> bool:
        """Whether the weights must be those of a run that nothing happened to, to the bit."""
        return self.same_workers and not self.skipped_steps


def _saving(point: Point) -> Drill:
    said = {
        "copying": "before its state is copied", "copied": "when its state is copied", "sending": "before its shard",
        "half sent": "with half of its shard sent", "sent": "when its shard is sent", "noted": "when its note is left",
        "gathered": "at rank 0, before the index", "committed": "at rank 0, when the index is there",
        "tidied": "at rank 0, when the notes are gone", "pruning": "at rank 0, with an old checkpoint half deleted",
    }[point]  # fmt: skip
    return Drill(
        f"save: {point}",
        f"SIGKILL of a worker in a save, {said}",
        Fault("kill", step=_PRUNED if point == "pruning" else _SAVED, point=point),
        lost_at_most=1 + SAVE_EVERY,
    )


DRILLS = (
    Drill("worker", "SIGKILL of a worker between saves", Fault("kill")),
    *(_saving(point) for point in POINTS),
    Drill("driver", "SIGKILL of the driver; the same command again", SLOW, "driver"),
    Drill("stop", "SIGTERM to the driver; the same command again", Fault("stop"), lost_at_most=0),
    Drill("error", "an exception in one worker while the others are in a collective", Fault("error")),
    Drill("hang", "one worker never comes back (train.hang_minutes=0.5)", Fault("hang")),
    Drill("nan", "a gradient of one worker is no number", Fault("nan"), restarts=False, skipped_steps=1),
    Drill("store", "the store takes no checkpoint for 10 s", Fault("store", seconds=10.0), restarts=False,
          lost_at_most=0),
    Drill("corrupt", "the newest checkpoint is cut in half, then a worker killed", Fault("corrupt")),
    Drill("notice", "a node is said to go, its worker killed 3 s later", Fault("notice", seconds=3.0)),
    Drill("node", "one of two nodes is lost, another comes", SLOW, "node", local=True),
    Drill("drained node", "one of two nodes is drained as preempted and lost 20 s later, another comes", SLOW,
          "drained node", steps=40, local=True),
    Drill("growth", "1 to 2 workers: one of two nodes is lost, 20 s after the restart another comes", SLOW, "growth",
          steps=60, same_workers=False, local=True),
)  # fmt: skip
SHORT = ("worker", "save: half sent", "save: gathered", "driver", "error", "hang", "nan", "store", "corrupt")
"""What `kit19 drill` does when nothing is named: the faults a cluster's network and store take part in."""
