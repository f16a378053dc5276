"""The loss on the validation split. All ranks go through it in step."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.train import batches
from kit19_ray.train.engine import Engine
from kit19_ray.train.inputs import prepare_batch


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
