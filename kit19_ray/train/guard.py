"""Looks at the loss and the gradient of every step: what was left out, what is a spike, when it is enough."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

import numpy.typing as npt

from kit19_ray.artifacts.checkpoint import GuardState
from kit19_ray.config.schema import TrainConfig
from kit19_ray.errors import TrainError

_WINDOW = 50  # gradient norms whose median a spike is measured by
_LEAST = 10  # of them, before anything is called a spike
_ROWS_NAMED = 8


class Guard:
    """What it knows goes into checkpoints: a run that goes on judges as one that never stopped.

    Attributes:
        skipped: steps left out since the run began.
        norm: of the last step's gradient.
        counted: whether the last step's loss belongs into the mean.
        error: what ends the run, once something does; the same at every rank.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._norms: deque[float] = deque(maxlen=_WINDOW)
        self._in_a_row = 0
        self.skipped = 0
        self.norm = 0.0
        self.counted = True
        self.error: TrainError | None = None

    def look(self, step: int, applied: bool, loss: float, norm: float, rows: npt.NDArray[Any]) -> list[str]:
        """Judges a step.

        Args:
            step: its number, from 1.
            applied: whether DeepSpeed changed the weights by it.
            loss: its summed loss over all ranks.
            norm: of its gradient.
            rows: packed rows it was computed on.

        Returns:
            What the user should know.
        """
        self.norm = norm
        self.counted = applied and math.isfinite(loss)
        if not applied:
            return self._left_out(step, loss, rows)
        self._in_a_row = 0
        if not math.isfinite(loss):
            self.error = self.diverged(f"loss is {loss} at step {step}")
            return []
        said = []
        factor = self._config.spike_factor
        if factor is not None and len(self._norms) >= _LEAST:
            median = statistics.median(self._norms)
            if norm > factor * median > 0:
                times = norm / median
                said.append(f"step {step}: gradient norm {norm:.3g}, {times:.0f} times the median; {_named(rows)}")
        self._norms.append(norm)
        return said

    def _left_out(self, step: int, loss: float, rows: npt.NDArray[Any]) -> list[str]:
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row > self._config.max_skipped_steps:
            self.error = self.diverged(f"gradients of {self._in_a_row} steps in a row are not finite, at step {step}")
        return [f"step {step} is left out: its gradient is not finite (summed loss {loss:.6g}); {_named(rows)}"]

    def diverged(self, what: str) -> TrainError:
        """The error for a training that leads nowhere."""
        return TrainError(
            f"the training has diverged: {what}",
            hint=f"lower train.learning_rate={self._config.learning_rate} or raise train.warmup_ratio; events.jsonl in "
            "the run's prefix names the rows",
        )

    def state(self) -> GuardState:
        """For a checkpoint, JSON-ready."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row, "norms": list(self._norms)}

    def restore(self, state: GuardState) -> None:
        """Goes on from `state`."""
        self.skipped, self._in_a_row = int(state["skipped"]), int(state["in_a_row"])
        self._norms = deque(state["norms"], maxlen=_WINDOW)


def _named(rows: npt.NDArray[Any]) -> str:
    more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
    return f"packed rows {', '.join(map(str, rows[:_ROWS_NAMED].tolist()))}{more}"
