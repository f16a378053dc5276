"""From rows of the shards to the tensors of a forward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from kit19_ray.artifacts.packed_shards import Int32, PackedSplit
from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.lm import attention
from kit19_ray.lm.loaded_model import ModelInputs
from kit19_ray.train.batches import NO_ROW, Int64
from kit19_ray.train.loss import target_positions

Batch = ModelInputs
"""The arguments of `PackedLM.forward`: tensors on the device, and `longest`, an int."""


def prepare_batch(split: PackedSplit, rows: Int64, device: torch.device, flat: bool = False) -> Batch:
    """The tensors of one forward pass on `rows`; NO_ROW gives a row without labels.

    Args:
        flat: for attention by borders: the rows end to end, see `lm.attention`.
    """
    columns = split.rows(np.where(rows == NO_ROW, 0, rows))
    columns["labels"][rows == NO_ROW] = IGNORE
    return to_device(columns, device, flat)


def to_device(columns: dict[str, Int32], device: torch.device, flat: bool = False) -> Batch:
    """The same of rows at hand: int32 `[rows, seq_len]` each of input_ids, labels, position_ids."""
    positions, targets = target_positions(columns["labels"], columns["position_ids"])
    arrays: dict[str, npt.NDArray[Any]] = {
        "input_ids": columns["input_ids"].astype(np.int64),
        "position_ids": columns["position_ids"].astype(np.int64),
        "positions": positions,
        "targets": targets,
    }
    longest: dict[str, int] = {}
    if flat:
        cuts, length = attention.borders(columns["position_ids"])
        arrays |= {name: arrays[name].reshape(1, -1) for name in ("input_ids", "position_ids")} | {"borders": cuts}
        longest = {"longest": length}
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if device.type != "cpu":
        batch = {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}
    return batch | longest


def without_targets(batch: Batch) -> Batch:
    """The arguments of `PackedLM.logits`: what the model reads."""
    return {name: value for name, value in batch.items() if name not in ("positions", "targets")}
