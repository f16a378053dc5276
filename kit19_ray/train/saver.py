"""When a checkpoint is due, and what it says of the run; `CheckpointWriter` does the writing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from kit19_ray.artifacts import checkpoint
from kit19_ray.artifacts.checkpoint import CheckpointIndex
from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.errors import TrainError
from kit19_ray.train.agreement import Agreement
from kit19_ray.train.checkpoint_writer import CheckpointWriter
from kit19_ray.train.engine import TrainEngine
from kit19_ray.train.spec import TrainSpec
from kit19_ray.train.train_state import TrainState

_DRAINING_SECONDS = 30.0  # between checkpoints while a node of the run is about to go


class Saver:
    """One rank's checkpoints of an attempt; the ranks agree elsewhere on when each begins.

    Args:
        attempt: names this start of the workers.
        say: takes what the user should know; any thread may call it.
    """

    def __init__(
        self, spec: TrainSpec, state: TrainState, agreement: Agreement, attempt: str, say: Callable[[str], None]
    ) -> None:
        self._spec, self._state, self._agreement = spec, state, agreement
        self._writer = CheckpointWriter(
            spec.out, attempt, agreement.rank, agreement.world_size, say, spec.config.keep_checkpoints,
            spec.config.keep_best,
        )  # fmt: skip
        self._begun, self._step, self._owed = time.monotonic(), -1, False

    def spare(self, steps: Callable[[], Collection[int]]) -> None:
        """Has the checkpoints of these steps stay; asked in another thread."""
        self._writer.spared = steps

    @property
    def saved_step(self) -> int:
        """Step of the last checkpoint that is whole (rank 0), -1 before the first."""
        return self._writer.saved_step

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is on its way."""
        return self._writer.busy

    def figures(self) -> MetricsLine:
        """How the checkpoints are, for metrics.jsonl."""
        since = self._writer.failing_since
        failing = 0.0 if since is None else time.monotonic() - since
        return {"checkpoint_step": self._writer.saved_step, "checkpoint_failing_seconds": round(failing, 1)}

    def begin(self, restored: bool) -> None:
        """The training begins: the time to the first checkpoint counts from here.

        Args:
            restored: whether the state is that of a checkpoint, which need not be written again.
        """
        self._begun = time.monotonic()
        self._step = self._state.step if restored else -1

    def check(self) -> None:
        """Fails when no checkpoint has got through for longer than the config allows.

        Raises:
            TrainError: so it is.
        """
        since, most = self._writer.failing_since, 60 * self._spec.config.save_grace_minutes
        if since is not None and time.monotonic() - since > most:
            raise TrainError(
                f"no checkpoint has got through to {self._spec.out} for {most / 60:.0f} minutes",
                hint="see that the store is there, then run the same command again; train.save_grace_minutes is how "
                "long it may be away",
            )

    def is_due(self, draining: bool) -> bool:
        """Whether the config wants a checkpoint now, and none is on its way.

        Args:
            draining: a node of the run is about to go.
        """
        config, step = self._spec.config, self._state.step
        if step and step != self._step and config.save_every and step % config.save_every == 0:
            self._owed = True  # and stays so until it is begun: the one before may be on its way still
        minutes = config.save_minutes
        if draining:
            minutes = min(minutes or 1e9, _DRAINING_SECONDS / 60)
        by_time = minutes is not None and time.monotonic() - self._begun >= 60 * minutes
        return (by_time or self._owed) and step > max(0, self._step) and not self.busy

    def has_news(self) -> bool:
        """Whether there is anything that the last checkpoint does not hold; what was owed is settled either way."""
        self._owed = False
        return self._state.step not in (0, self._step)

    def save(self, engine: TrainEngine) -> None:
        """Begins a checkpoint, at every rank; returns when the state is copied."""
        state = self._state
        pieces = engine.pieces()
        numels: dict[str, int] = {}
        for part in self._agreement.gather({piece.name: piece.numel for piece in pieces}):
            numels |= part
        index: CheckpointIndex = {
            "format": checkpoint.FORMAT,
            "step": state.step,
            "time": time.time(),
            "validation_loss": state.figures.get("validation_loss"),
            "workers": self._agreement.world_size,
            "zero_stage": self._spec.config.zero_stage,
            "state": state.record(),
            "parameters": numels,
            "block": checkpoint.BLOCK,
            "shards": [],
        }
        self._writer.start(pieces, index)
        self._begun, self._step = time.monotonic(), state.step

    def wait(self) -> None:
        """Waits for the checkpoint that is on its way."""
        self._writer.wait()

    def close(self) -> None:
        """Writes no more."""
        self._writer.close()
