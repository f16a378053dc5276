"""One key-value cache for all sequences that are being decoded: rows are taken and given back between steps.

    keys, values   [rows, heads, width, head size] a layer; a row's tokens stand at 0, 1, 2, ... without a gap
    a step         some adjacent rows, each with some new tokens that begin where the row ends

Nothing is moved when a sequence joins. A step reads a view of the tensors, so a decoded token costs no copy of what is
cached; transformers' own `DynamicCache` copies all of it for every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_WIDTH_STEP = 128  # the tensors grow by doubling, in multiples of this


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values of all rows."""

    def __init__(self, slots: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Makes the tensors; zeros, because what a mask hides must still be finite (0 x NaN is NaN)."""
        rows, width = self._slots.rows, self._slots.width
        self.keys = key_states.new_zeros((rows, key_states.shape[1], width, key_states.shape[3]))
        self.values = value_states.new_zeros((rows, value_states.shape[1], width, value_states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the step's new tokens and gives back what its rows have cached."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        step = self._slots.step
        assert self.keys is not None and self.values is not None and step is not None
        for cached, new in ((self.keys, key_states), (self.values, value_states)):
            # One token a row is the common step: a single scatter instead of a loop over the rows in Python.
            if new.shape[2] == 1 and len(step.starts) > 1:
                rows, columns = step.places(new.device)
                cached[rows, :, columns] = new[:, :, 0]
                continue
            for place, (start, count) in enumerate(zip(step.starts, step.counts)):
                # Only `count` of the pass's columns are this row's; the padding behind them must not overwrite
                # anything.
                cached[step.first + place, :, start : start + count] = new[place, :, :count]
        # A view, not a copy: this is why a step's rows must be adjacent.
        rows_of_step = slice(step.first, step.first + len(step.starts))
        return self.keys[rows_of_step, :, : step.width], self.values[rows_of_step, :, : step.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Cached length and offset; the step brings its own mask, so nothing is made from them."""
        return (self._slots.step.width if self._slots.step else 0), 0

    def get_seq_length(self) -> int:
        """Unused: the step brings its own positions."""
        return 0

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1


class Step:
    """Which rows a forward pass is about.

    Args:
        first: the first row; the others follow it.
        starts: tokens each row has cached already.
        counts: new tokens of each row.
    """

    def __init__(self, first: int, starts: Sequence[int], counts: Sequence[int]) -> None:
        self.first, self.starts, self.counts = first, list(starts), list(counts)
        self.width = max(start + count for start, count in zip(starts, counts))
        self._places: tuple[torch.Tensor, torch.Tensor] | None = None

    def places(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of each row's first new token, int64 `[rows]` each; made once for all layers."""
        if self._places is None or self._places[0].device != device:
            rows = torch.arange(self.first, self.first + len(self.starts), device=device)
            self._places = rows, torch.tensor(self.starts, device=device)
        return self._places


class SlotCache(Cache):
    """Keys and values of sequences, a row each.

    Attributes:
        rows, width: how many sequences and how many tokens of each there is room for; `reserve` makes more.
        step: what the forward pass that runs now is about.
    """

    def __init__(self, layers: int) -> None:
        self.rows, self.width = 1, _WIDTH_STEP
        self.step: Step | None = None
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])

    def reserve(self, rows: int, width: int, most: int) -> None:
        """Makes room for `rows` rows of `width` tokens. The rows in use must fit in that; the others are lost.

        Rows are doubled, so that each sequence that joins does not copy all the others, but not beyond `most` tokens in
        all; the width follows the longest sequence, down as well as up.
        """
        width = -(-width // _WIDTH_STEP) * _WIDTH_STEP
        # Room that is there is kept as it is: a shorter sequence gains nothing by a copy of all the others.
        if rows <= self.rows and width <= self.width:
            return
        # Doubling alone could take rows that `most` does not allow; `rows` alone would copy all at every arrival.
        made = max(rows, min(2 * self.rows, max(1, most // width)))
        for layer in self._made():
            for name in ("keys", "values"):
                old = getattr(layer, name)
                new = old.new_zeros((made, old.shape[1], width, old.shape[3]))
                kept = slice(min(made, self.rows)), slice(None), slice(min(width, self.width))
                new[kept] = old[kept]
                setattr(layer, name, new)
        self.rows, self.width = made, width

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a row over another's."""
        if source != target and length:
            for layer in self._made():
                layer.keys[target, :, :length] = layer.keys[source, :, :length]
                layer.values[target, :, :length] = layer.values[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchanges the first `length` tokens of two rows."""
        if one != other and length:
            for layer in self._made():
                for cached in (layer.keys, layer.values):
                    # Assignment between rows of one tensor reads what it just wrote, hence the copy.
                    kept = cached[one, :, :length].clone()
                    cached[one, :, :length] = cached[other, :, :length]
                    cached[other, :, :length] = kept

    def read(self, row: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A copy of a row's first `length` tokens, layer by layer."""
        return [(layer.keys[row, :, :length].clone(), layer.values[row, :, :length].clone()) for layer in self._made()]

    def write(self, row: int, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], length: int) -> None:
        """Puts what `read` gave, or the beginning of it, at a row's beginning."""
        every: Sequence[Any] = self.layers
        for layer, (keys, values) in zip(every, layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(keys[None], values[None])
            layer.keys[row, :, :length] = keys[:, :length]
            layer.values[row, :, :length] = values[:, :length]

    def _made(self) -> list[Any]:
        every: Sequence[Any] = self.layers
        return [layer for layer in every if layer.is_initialized]


def attention_masks(config: Any, step: Step, dtype: torch.dtype, device: torch.device) -> Any:
    """What a token may look at: itself and what stands before it in its row; 0 there, the lowest number elsewhere.

    [rows, 1, new tokens, width], or one such mask for each kind of layer where the model mixes kinds.
    """
    # A row's tokens stand from 0 without a gap, so a column of the cache is a position of the text, and causality is
    # one comparison. Columns beyond a row's own end may hold another's leavings: they are larger than any query.
    starts = torch.tensor(step.starts, device=device)[:, None, None]
    queries = starts + torch.arange(max(step.counts), device=device)[None, :, None]
    keys = torch.arange(step.width, device=device)[None, None, :]
    seen = keys <= queries
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    # A config with `sliding_window` and no layer_types means the window for every layer; one that lists full attention
    # alone has switched the window off, whatever number it still carries.
    if kinds <= {"full_attention"}:
        return _additive(seen if window is None or kinds else seen & (keys > queries - window), dtype)
    masks = {"full_attention": _additive(seen, dtype)}
    if window is not None:
        masks["sliding_attention"] = _additive(seen & (keys > queries - window), dtype)
    return masks


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # The lowest finite number, not -inf: a row of -inf alone is NaN after softmax, and with a sliding window a padded
    # query can be such a row.
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
