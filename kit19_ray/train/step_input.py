"""What a step is computed on, read while the step before it is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch

from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.train import batches
from kit19_ray.train.engine import TrainEngine
from kit19_ray.train.inputs import Batch, prepare_batch
from kit19_ray.train.pace import Pace
from kit19_ray.train.spec import TrainSpec, accumulation


class StepInput(NamedTuple):
    """One rank's part of a global batch.

    Attributes:
        passes: this rank's forward passes.
        labels: of the whole global batch, over all ranks.
        rows: of the whole global batch.
        flops: of this rank's part.
    """

    passes: list[Batch]
    labels: int
    rows: batches.Int64
    flops: float


class StepReader:
    """Reads one rank's step inputs in a thread of its own."""

    def __init__(
        self, spec: TrainSpec, split: PackedSplit, engine: TrainEngine, pace: Pace, rank: int, device: torch.device
    ) -> None:
        self._spec, self._split, self._engine, self._pace = spec, split, engine, pace
        self._rank, self._device = rank, device
        self._passes = accumulation(spec.plan.batch_size, spec.plan.micro_batch_size, engine.world_size)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")

    def fetch(self, step: int) -> Future[StepInput]:
        """The input of `step`, soon."""
        return self._pool.submit(self.read, step)

    def read(self, step: int) -> StepInput:
        """The input of `step`."""
        plan = self._spec.plan
        rows = batches.global_batch(self._spec.seed, step, plan.rows, plan.batch_size)
        mine = batches.rank_rows(rows, self._rank, self._engine.world_size)
        passes = [
            prepare_batch(self._split, part, self._device, self._engine.flat)
            for part in batches.micro_batches(mine, plan.micro_batch_size, self._passes)
        ]
        flops = self._pace.flops(self._split, mine)
        return StepInput(passes, int(self._split.num_labels[rows].sum()), rows, flops)

    def close(self) -> None:
        """Reads no more; what is being read ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
