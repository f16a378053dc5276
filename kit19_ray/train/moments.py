"""How an optimizer keeps AdamW's two moments of a flat partition, and what a checkpoint sees of them."""

from __future__ import annotations

from typing import Any, Protocol

import torch

Values = dict[str, torch.Tensor]  # float32 `[n]` of a whole partition, by "m" (first moment) and "v" (second moment)


class Moments(Protocol):
    """The moments of an optimizer, as float32. `flat` is a partition that the optimizer has as a parameter."""

    def read(self, flat: torch.Tensor) -> Values:
        """The moments as they are; zeros where the optimizer has not stepped yet."""

    def write(self, flat: torch.Tensor, values: Values, updates: int) -> None:
        """Makes the moments those of `values`, which `read` gave and a restore has written into.

        Args:
            updates: optimizer steps taken so far, which AdamW's bias correction depends on.
        """


class Float32Moments:
    """Torch's AdamW: `read` gives views of its memory, so a restore has written them already."""

    def __init__(self, adam: torch.optim.Optimizer) -> None:
        self._adam = adam

    def read(self, flat: torch.Tensor) -> Values:
        """See `Moments`."""
        state: dict[str, Any] = self._adam.state[flat]
        if not state:  # what its fused AdamW would begin with
            state["step"] = torch.zeros((), dtype=torch.float32, device=flat.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
        return {"m": state["exp_avg"], "v": state["exp_avg_sq"]}

    def write(self, flat: torch.Tensor, values: Values, updates: int) -> None:
        """See `Moments`."""
        self._adam.state[flat]["step"].fill_(updates)  # one tensor each: a shared one would be counted up once a group
