"""Linear layers that decode a batch on a CPU two to three times as fast: the weights times the tokens, not the reverse.

BLAS splits the work by the rows of its result. A step of 16 sequences has 16 rows `[16, out]` of a product that is
thousands wide, which MKL's kernels for float32 are slow at; transposed, `[out, 16]`, it has rows enough. Milliseconds
of two cores of a Xeon (torch 2.13; `benchmarks/few_rows.py` prints them):

    rows                        9     16     24     32
    576 -> 1,536    x W^T     0.25   0.81   0.91   0.91
                 (W x^T)^T    0.26   0.27   0.38   0.40
    576 -> 49,152   x W^T     38.2   51.6   54.5   56.5
                 (W x^T)^T    22.3   25.5   19.6   24.7
"""

from __future__ import annotations

import math
from typing import Any

import torch

_ROWS = range(9, 33)
"""Tokens for which the transposed product was faster or as fast at every shape tried."""
_HEAD = 1 << 14
"""Outputs that only a vocabulary has: of its logits no view is taken, and a copy would cost a tenth of the product."""


class FewRowsLinear(torch.nn.Linear):
    """`Linear` whose forward pass is transposed where it has few rows; the results differ by rounding."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        rows = input.shape[:-1]
        if math.prod(rows) not in _ROWS:
            return super().forward(input)
        tokens = input.reshape(-1, self.in_features).t()
        made = torch.mm(self.weight, tokens)
        if self.bias is not None:
            made += self.bias[:, None]
        made = made.t()
        if self.out_features < _HEAD:
            made = made.contiguous()  # laid out as `Linear` does, since models take views of what comes back
        return made.view(*rows, self.out_features)


def use(model: Any) -> None:
    """Makes every plain linear layer of a float32 model on the CPU one of these; nothing is copied."""
    for module in model.modules():
        # Exactly Linear: a subclass computes something else, or stores its weights another way.
        if (
            type(module) is torch.nn.Linear
            and module.weight.device.type == "cpu"
            and module.weight.dtype == torch.float32
        ):
            module.__class__ = FewRowsLinear
