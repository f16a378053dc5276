"""One rank's looks at the validation split while it trains: the loss, and the answers to a few prompts."""

from __future__ import annotations

import numpy as np
import torch

from kit19_ray.artifacts import packed_shards
from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.train import samples
from kit19_ray.train.agreement import AgreedError
from kit19_ray.train.engine import TrainEngine
from kit19_ray.train.inputs import Batch, prepare_batch
from kit19_ray.train.run_log import RunLog
from kit19_ray.train.spec import TrainSpec
from kit19_ray.train.train_state import TrainState
from kit19_ray.train.validation import validation_loss
from kit19_ray.train.watchdog import Watchdog


class Validator:
    """The split of the run's data prefix, opened."""

    def __init__(self, spec: TrainSpec, state: TrainState, log: RunLog, watchdog: Watchdog) -> None:
        self._spec, self._state, self._log, self._watchdog = spec, state, log, watchdog
        self._split = PackedSplit.open(spec.data, "validation")
        self._tasks = packed_shards.read_tasks(spec.data, "validation")

    def run(self, engine: TrainEngine, device: torch.device) -> MetricsLine:
        """The mean loss per label of the whole split, and of each task's rows; answers go into samples.jsonl.

        Raises:
            AgreedError: it is not a number, so the weights are worth nothing.
        """

        def progress() -> None:
            self._watchdog.progress("validating", 60 * self._spec.config.timeout_minutes)

        progress()
        self._log.status("validating")
        found = validation_loss(engine, self._split, self._tasks, self._spec.plan.micro_batch_size, device, progress)
        if not np.isfinite(found.whole):
            diverged = self._state.guard.diverged(f"validation loss is {found.whole}")
            raise AgreedError(0, "validating", diverged, everywhere=True)
        for prompt in samples.prompts(self._split, self._spec.config.samples):
            self._log.sample(prompt, samples.answer(engine, prompt, self._spec.eos_token_id))
        self._state.figures["validation_loss"] = found.whole
        line: MetricsLine = {"validation_loss": found.whole}
        return {**line, "validation_loss_by_task": found.by_task} if found.by_task else line

    def first_rows(self, most: int, engine: TrainEngine, device: torch.device) -> Batch:
        """The split's first rows, `most` at most, as the engine takes them."""
        rows = np.arange(min(most, len(self._split)))
        return prepare_batch(self._split, rows, device, engine.flat)
