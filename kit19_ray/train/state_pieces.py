"""This rank's part of the optimizer: for each parameter it holds something of, the float32 weights and both moments.

DeepSpeed lays parameters out differently in each ZeRO stage; what they have in common is that a rank holds a run of
consecutive elements of a (flattened) parameter, or nothing. That is what a checkpoint is made of, so that any number of
ranks and any stage can take it up.

Reads attributes of DeepSpeed's optimizers that are not its public interface (0.19): docs/upgrading.md lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from kit19_ray.train.moments import Moments, Values

KINDS = ("w", "m", "v")  # weights, first moment, second moment


@dataclass(frozen=True)
class Part:
    """A flat partition of the optimizer's, and its moments as `Moments.read` gave them."""

    flat: torch.Tensor
    moments: Values


@dataclass(frozen=True)
class Piece:
    """Consecutive elements of one parameter.

    Attributes:
        name: of the parameter in the model.
        start: index of the first element in the flattened parameter.
        numel: of the whole parameter.
        tensors: float32 `[n]` by KINDS, views of the optimizer's memory and of the part's moments.
        part: what it lies in; None of a piece that no optimizer has.
    """

    name: str
    start: int
    numel: int
    tensors: dict[str, torch.Tensor]
    part: Part | None = None

    def __len__(self) -> int:
        return len(self.tensors["w"])


def local_pieces(optimizer: Any, names: dict[int, str], zero_stage: int, moments: Moments) -> list[Piece]:
    """The pieces of this rank, in the optimizer's order; moments that are not there yet are zeros.

    Args:
        optimizer: DeepSpeed's.
        names: by `id` of the parameter.
        moments: of the optimizer that DeepSpeed's holds.
    """
    found = _stage_3(optimizer) if zero_stage == 3 else _stage_1_2(optimizer)
    parts: dict[int, Part] = {}
    out = []
    for parameter, flat, at, start, length, numel in found:
        if id(flat) not in parts:
            parts[id(flat)] = Part(flat, moments.read(flat))
        part = parts[id(flat)]
        tensors = {kind: tensor.narrow(0, at, length) for kind, tensor in {"w": flat.data, **part.moments}.items()}
        out.append(Piece(names[id(parameter)], start, numel, tensors, part))
    return out


_Found = tuple[torch.Tensor, torch.Tensor, int, int, int, int]  # parameter, flat partition, at, start, length, numel


def _stage_1_2(optimizer: Any) -> Iterator[_Found]:
    for flat, parameters in zip(optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups, strict=True):
        for parameter in parameters:
            mapping = parameter._hp_mapping
            if mapping is None:
                continue  # another rank's
            at, inside = mapping.hp_fragment_address, mapping.lp_fragment_address
            yield parameter, flat, at.start, inside.start, at.numel, parameter.numel()


def _stage_3(optimizer: Any) -> Iterator[_Found]:
    for flat, parameters in zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True):
        at = 0
        for parameter in parameters:
            each = parameter.partition_numel()  # of every rank, the last one's padded
            start = each * dist.get_rank(parameter.ds_process_group)
            length = min(each, parameter.ds_numel - start)
            if length > 0:
                yield parameter, flat, at, start, length, parameter.ds_numel
            at += each


def finish_restore(optimizer: Any, pieces: list[Piece], zero_stage: int, moments: Moments, updates: int) -> None:
    """Makes the model's weights and the moments those of the pieces, once these were written; all ranks must call it.

    Args:
        updates: optimizer steps taken so far.
    """
    for part in {id(piece.part): piece.part for piece in pieces if piece.part is not None}.values():
        moments.write(part.flat, part.moments, updates)
    if zero_stage != 3:
        optimizer.update_lp_params()
        return
    optimizer.checkpoint_event_prologue()
    for flat32, flat, parameters in zip(
        optimizer.fp32_partitioned_groups_flat,
        optimizer.fp16_partitioned_groups_flat,
        optimizer.fp16_partitioned_groups,
        strict=True,
    ):
        flat.data.copy_(flat32.data)
        for part, values in zip(parameters, optimizer.unflatten(flat, parameters), strict=True):
            part.data = values.data
    optimizer.checkpoint_event_epilogue()
