"""The optimizers that `train.optimizer` names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kit19_ray.train.eight_bit import EightBitMoments, adamw_8bit
from kit19_ray.train.moments import Float32Moments, Moments

Groups = list[dict[str, Any]]  # of parameters, as torch's optimizers take them


@dataclass(frozen=True)
class Kind:
    """An AdamW.

    Attributes:
        make: builds it from groups, learning rate, both betas and epsilon.
        moments: what a checkpoint sees of it.
    """

    make: Callable[[Groups, float, tuple[float, float], float], Any]
    moments: Callable[[Any], Moments]


def _adamw(groups: Groups, lr: float, betas: tuple[float, float], eps: float) -> Any:
    """Torch's fused AdamW: DeepSpeed's own is compiled at run time."""
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)


OPTIMIZERS = {"adamw": Kind(_adamw, Float32Moments), "adamw_8bit": Kind(adamw_8bit, EightBitMoments)}
