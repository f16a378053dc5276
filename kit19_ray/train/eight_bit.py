"""AdamW with moments of 8 bits (arXiv 2110.02861), by bitsandbytes, and those moments as float32 for checkpoints.

bitsandbytes keeps a moment as a byte an element, which names one of 256 values of a map between -1 and 1, and the
largest magnitude of each 256 elements, which scales them. A partition of fewer than 4,096 elements stays float32.

A checkpoint holds the values the bytes stand for. Taken up by a partition with the same borders, they give the bytes
and scales they came from, so a run that goes on with the same workers and ZeRO stage goes on with the same moments to
the bit. bitsandbytes' own quantization would not: the signed map ends at 1 but at -0.993, and a block whose largest
element is negative would get a smaller scale on each restore. With other workers or another stage the blocks begin
elsewhere, and an element is off by up to half the map's widest step: 0.7 % of its block's largest magnitude in the
first moment, 0.35 % in the second.

The float32 values are on the CPU, and converted a part at a time: on a GPU that holds the bytes there may be no room
for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from kit19_ray.train.moments import Values

BLOCK = 256  # elements with a scale of their own: bitsandbytes' own choice for optimizers, which has no key
_PART = 1 << 24  # elements that are converted at once, whole blocks
_KEYS = {"m": "1", "v": "2"}  # by which bitsandbytes ends its names


def adamw_8bit(groups: list[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> Any:
    """bitsandbytes' AdamW, which steps on a GPU only."""
    from bitsandbytes.optim import AdamW8bit

    # Blocks of their own keep an outlier from coarsening all else; small partitions are not worth it. Both are
    # bitsandbytes' defaults, and what `EightBitMoments` reads.
    return AdamW8bit(groups, lr=lr, betas=betas, eps=eps, min_8bit_size=4096, block_wise=True)


class EightBitMoments:
    """The moments of bitsandbytes' AdamW, see `Moments`: `read` gives copies, which `write` makes bytes of again."""

    def __init__(self, adam: Any) -> None:
        self._adam = adam

    def read(self, flat: torch.Tensor) -> Values:
        """See `Moments`."""
        state = self._adam.state[flat]
        if not state:
            self._adam.init_state(self._adam.param_groups[0], flat, 0, 0)
        return {kind: _read(state, key) for kind, key in _KEYS.items()}

    def write(self, flat: torch.Tensor, values: Values, updates: int) -> None:
        """See `Moments`."""
        state = self._adam.state[flat]
        for kind, key in _KEYS.items():
            _write(state, key, values[kind])
        state["step"] = updates


def _read(state: dict[str, Any], key: str) -> torch.Tensor:
    kept: torch.Tensor = state[f"state{key}"]
    if kept.dtype is torch.float32:
        return kept.to("cpu", copy=True)
    values = torch.empty(len(kept), dtype=torch.float32)
    for part, blocks in _parts(len(kept)):
        values[part] = dequantize(kept[part], state[f"absmax{key}"][blocks], state[f"qmap{key}"])
    return values


def _write(state: dict[str, Any], key: str, values: torch.Tensor) -> None:
    kept = state[f"state{key}"]
    if kept.dtype is torch.float32:
        kept.copy_(values)
        return
    for part, blocks in _parts(len(kept)):
        found = quantize(values[part].to(kept.device), state[f"qmap{key}"])
        kept[part], state[f"absmax{key}"][blocks] = found


def _parts(numel: int) -> Iterator[tuple[slice, slice]]:
    """Elements, and their blocks, of one conversion after the other."""
    for start in range(0, numel, _PART):
        yield slice(start, start + _PART), slice(start // BLOCK, (start + _PART) // BLOCK)


def dequantize(codes: torch.Tensor, scales: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """What bytes stand for, float32 `[n]`, to the bit what the optimizer's kernel reads.

    Args:
        codes: uint8 `[n]`.
        scales: float32 `[blocks]`.
        values: float32 `[256]`, the map.
    """
    return values[codes.int()] * scales.repeat_interleave(BLOCK)[: len(codes)]


def quantize(given: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes and scales for float32 `[n]`: those that it was dequantized from where it was, else the nearest.

    Args:
        values: float32 `[256]`, the map, in rising order.
    """
    numel = len(given)
    blocks = torch.nn.functional.pad(given, (0, -numel % BLOCK)).view(-1, BLOCK)
    # The largest element had the map's last value of its sign.
    ends = values[[0, -1]].double()
    most = blocks.amax(1).clamp_min(0).double() / ends[1]
    least = blocks.amin(1).clamp_max(0).double() / ends[0].clamp_max(-torch.finfo(torch.float64).tiny)
    scales = torch.maximum(most, least).float()
    codes = _nearest(blocks, scales, values)
    # Products of the map's end and neighbouring scales round to the same float: of these, the one the others fit.
    wrong = _wrong(blocks, codes, scales, values)
    for toward in (0.0, torch.inf):
        other = torch.nextafter(scales, torch.full_like(scales, toward))
        found = _nearest(blocks, other, values)
        fewer = _wrong(blocks, found, other, values)
        better = fewer < wrong
        scales, wrong = torch.where(better, other, scales), torch.where(better, fewer, wrong)
        codes = torch.where(better[:, None], found, codes)
    return codes.view(-1)[:numel], scales


def _nearest(blocks: torch.Tensor, scales: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    shares = blocks / torch.where(scales > 0, scales, 1)[:, None]
    return torch.bucketize(shares, (values[1:] + values[:-1]) / 2, out_int32=True).to(torch.uint8)


def _wrong(blocks: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Elements of each block that are not what their bytes stand for."""
    return (values[codes.int()] * scales[:, None] != blocks).sum(1)
