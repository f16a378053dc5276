"""The validation split: its loss, and the answers to a few of its prompts. All ranks go through it in step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.train import batches, samples
from kit19_ray.train.agreement import AgreedError
from kit19_ray.train.engine import Engine
from kit19_ray.train.inputs import Batch, prepare_batch
from kit19_ray.train.run_log import RunLog
from kit19_ray.train.spec import TrainSpec
from kit19_ray.train.train_state import TrainState
from kit19_ray.train.watchdog import Watchdog


class Validator:
    """One rank's part."""

    def __init__(
        self,
        spec: TrainSpec,
        engine: Engine,
        split: PackedSplit,
        device: torch.device,
        state: TrainState,
        log: RunLog,
        watchdog: Watchdog,
    ) -> None:
        self._spec, self._engine, self._split, self._device = spec, engine, split, device
        self._state, self._log, self._watchdog = state, log, watchdog

    def run(self) -> float:
        """Mean loss per label of the whole split; answers go into samples.jsonl.

        Raises:
            AgreedError: it is not a number, so the weights are worth nothing.
        """

        def progress() -> None:
            self._watchdog.progress("validating", 60 * self._spec.config.timeout_minutes)

        progress()
        self._log.status("validating")
        loss = validation_loss(self._engine, self._split, self._spec.plan.micro_batch_size, self._device, progress)
        if not np.isfinite(loss):
            diverged = self._state.guard.diverged(f"validation loss is {loss}")
            raise AgreedError(0, "validating", diverged, everywhere=True)
        for prompt in samples.prompts(self._split, self._spec.config.samples):
            self._log.sample(prompt, samples.answer(self._engine, prompt, self._spec.eos_token_id))
        return loss

    def first_rows(self, most: int) -> Batch:
        """The split's first rows, `most` at most, as the engine takes them."""
        rows = np.arange(min(most, len(self._split)))
        return prepare_batch(self._split, rows, self._device, self._engine.flat)


def validation_loss(
    engine: Engine, split: PackedSplit, micro_batch_size: int, device: torch.device, progress: Callable[[], None]
) -> float:
    """Mean loss per label of the whole split; the same at every rank.

    Args:
        progress: called before each pass.
    """
    total = torch.zeros((), dtype=torch.float64, device=device)
    for rows in batches.validation_passes(len(split), engine.rank, engine.world_size, micro_batch_size):
        progress()
        total += engine.loss_sum(prepare_batch(split, rows, device, engine.flat))
    dist.all_reduce(total)
    return float(total) / int(split.num_labels.sum())
