"""Model FLOPs of a step, and what share of the GPUs' peak they come to (MFU).

As PaLM counts them (arXiv 2204.02311, appendix B): 6 per weight and token for the forward and the backward pass, and
for attention 12 x layers x heads x head_size per pair of positions, halved since it is causal. Two differences:

- packed rows attend within their examples only, so the pairs are the sum of the examples' squared lengths, not
  tokens x seq_len;
- the head counts for the positions it ran on.

What gradient checkpointing computes again is not counted: it is no use to anyone. With adapters, the gradients of
frozen weights are not computed: 4 per weight and token instead of 6.

Peaks are dense bf16 figures of NVIDIA's data sheets, in FLOP/s: A100 312e12, H100 and H200 SXM 989e12
(H100 PCIe 756e12), B200 2250e12, L40S 362e12, L4 121e12, A10 125e12 (A10G 70e12).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_PEAKS = (
    ("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12), ("H200", 989e12), ("H20", 148e12), ("GH200", 989e12),
    ("B200", 2250e12), ("A100", 312e12), ("A10G", 70e12), ("A10", 125e12), ("L40S", 362e12), ("L4", 121e12),
)  # fmt: skip
"""(part of the device's name, FLOP/s); the first that fits counts."""


def peak(device: str) -> float | None:
    """FLOP/s of a GPU by the name CUDA gives it, None where it is not known here."""
    words = device.replace("-", " ")
    return next((value for name, value in _PEAKS if name in words), None)


def of_rows(
    position_ids: npt.NDArray[np.int32],
    learned: int,
    *,
    body: int,
    head: int,
    layers: int,
    attention: int,
    adapters: bool,
) -> float:
    """FLOPs of a training step on packed rows.

    Args:
        position_ids: int32 `[rows, seq_len]`.
        learned: positions the head runs on.
        body: weights of the layers; the embedding is looked up, and is not among them.
        head: weights of the head.
        attention: heads x head_size.
        adapters: whether most weights are frozen.
    """
    per_weight = 4 if adapters else 6
    flat = position_ids.reshape(-1)
    first = flat == 0
    first[:: position_ids.shape[1]] = True
    lengths = np.diff(np.append(np.flatnonzero(first), len(flat))).astype(np.float64)
    pairs = float((lengths**2).sum()) / 2
    return per_weight * (body * float(len(flat)) + head * float(learned)) + 12.0 * layers * attention * pairs
