"""What a run carries from step to step beside weights and optimizer: a checkpoint holds it, a restore takes it up."""

from __future__ import annotations

import math

from kit19_ray.artifacts.checkpoint import RunState
from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.config.schema import TrainConfig
from kit19_ray.train.guard import Guard
from kit19_ray.train.spec import TrainPlan


class TrainState:
    """The same at every rank.

    Attributes:
        step: steps taken.
        loss, labels: summed over all ranks since the last line of metrics.
        guard: what it knows of the gradients so far.
        figures: of the run, for the manifest: losses, and seconds of its steps.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.step = 0
        self.loss, self.labels = 0.0, 0
        self.guard = Guard(config)
        self.figures: dict[str, float] = {"seconds": 0.0}

    def record(self) -> RunState:
        """For a checkpoint, JSON-ready."""
        return {
            "loss": self.loss,
            "labels": self.labels,
            "figures": {name: value for name, value in self.figures.items() if math.isfinite(value)},
            "guard": self.guard.state(),
        }

    def place(self, plan: TrainPlan) -> MetricsLine:
        """Where in the run it is, as a line of metrics says it."""
        return {
            "step": self.step,
            "steps": plan.steps,
            "epoch": self.step * plan.batch_size / plan.rows,
            "progress": self.step / plan.steps,
        }

    def restore(self, step: int, state: RunState) -> None:
        """Goes on from `state`, which `record` made after `step` steps."""
        self.step = step
        self.loss, self.labels, self.figures = state["loss"], state["labels"], state["figures"]
        self.guard.restore(state["guard"])
