"""The loss on the validation split, and on each task's part of it. All ranks go through it in step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from kit19_ray.artifacts.packed_shards import Int32, PackedSplit
from kit19_ray.train import batches
from kit19_ray.train.engine import TrainEngine
from kit19_ray.train.inputs import prepare_batch


class ValidationLoss(NamedTuple):
    """Mean loss per label, the same at every rank.

    Attributes:
        by_task: empty where the data prefix does not say whose its examples are.
    """

    whole: float
    by_task: dict[str, float]


def validation_loss(
    engine: TrainEngine,
    split: PackedSplit,
    tasks: Sequence[Sequence[str]] | None,
    micro_batch_size: int,
    device: torch.device,
    progress: Callable[[], None],
) -> ValidationLoss:
    """The loss of the whole split.

    Args:
        tasks: by packed row, the task of each of its examples; None: nobody knows.
        progress: called before each pass.
    """
    names = sorted({task for row in tasks or () for task in row})
    number = {name: at for at, name in enumerate(names)}
    sums = torch.zeros(
        2, 1 + len(names) + 1, dtype=torch.float64, device=device
    )  # losses and labels: whole, tasks, nobody's
    for rows in batches.validation_passes(len(split), engine.rank, engine.world_size, micro_batch_size):
        progress()
        batch = prepare_batch(split, rows, device, engine.flat)
        losses = engine.losses(batch).double()
        sums[0, 0] += losses.sum()
        if tasks is None:
            continue
        there = np.where(rows == batches.NO_ROW, 0, rows)
        owners = examples_of(
            split.rows(there)["position_ids"], [[number[task] for task in tasks[row]] for row in there.tolist()]
        )
        mine = 1 + torch.from_numpy(np.where(owners < 0, len(names), owners)).to(device)[batch["positions"]]
        sums[0].index_add_(0, mine, losses)
        sums[1].index_add_(0, mine, torch.ones_like(losses))
    dist.all_reduce(sums)
    by_task = {name: float(sums[0, 1 + at] / sums[1, 1 + at]) for at, name in enumerate(names) if sums[1, 1 + at]}
    return ValidationLoss(float(sums[0, 0]) / int(split.num_labels.sum()), by_task)


def examples_of(position_ids: Int32, tasks: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """The task of every place of packed rows, flat; -1 where a row is padding.

    Args:
        position_ids: int32 `[rows, seq_len]`, which restart at every example and at the padding.
        tasks: by row, its examples' tasks.
    """
    found = np.full(position_ids.shape, -1, np.int64)
    for row, (places, mine) in enumerate(zip(position_ids, tasks, strict=True)):
        example = np.cumsum(places == 0) - 1
        known = example < len(mine)
        found[row, known] = np.asarray(mine, np.int64)[example[known]]
    return found.reshape(-1)
