"""Keys and values of prompts that were read before, so that what a new prompt has in common with one is copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

MIN_TOKENS = 16  # a shorter common beginning costs less to compute than to look for and copy

Layers = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class _Entry:
    tokens: np.ndarray
    layers: Layers


def common(one: Sequence[int] | np.ndarray, other: np.ndarray) -> int:
    """Tokens that two sequences have in common at their beginning."""
    size = min(len(one), len(other))
    differs = np.flatnonzero(np.asarray(one[:size]) != other[:size])
    return int(differs[0]) if len(differs) else size


class PrefixStore:
    """The sequences used last, at most `capacity` tokens of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._entries: list[_Entry] = []  # the last used at the end

    def find(self, prompt: Sequence[int]) -> tuple[int, Layers]:
        """The longest beginning of `prompt` that is kept, and its keys and values; (0, []) when there is none.

        The last token of a prompt is always left to compute: its logits are what is wanted.
        """
        # See above: with the whole prompt cached there would be no pass, and so no logits to choose from.
        wanted = np.asarray(prompt[:-1])
        best, found = 0, None
        for entry in self._entries:
            length = common(wanted, entry.tokens)
            if length > best:
                best, found = length, entry
        if found is None or best < MIN_TOKENS:
            return 0, []
        self._entries = [entry for entry in self._entries if entry is not found]
        # To the end: what is dropped first is what was not used for longest.
        self._entries.append(found)
        return best, found.layers

    def wants(self, tokens: Sequence[int]) -> bool:
        """Whether keeping a sequence would be of any use."""
        if not MIN_TOKENS <= len(tokens) <= self.capacity:
            return False
        # One that another begins with would be found as that one's beginning anyway.
        return all(common(tokens, entry.tokens) < len(tokens) for entry in self._entries)

    def keep(self, tokens: Sequence[int], layers: Layers) -> None:
        """Keeps a sequence, in the place of those it begins with and of those used longest ago."""
        new = np.asarray(tokens)
        for entry in [e for e in self._entries if len(e.tokens) <= len(new) and common(new, e.tokens) == len(e.tokens)]:
            self._drop(entry)
        while self._entries and self.size + len(new) > self.capacity:
            self._drop(self._entries[0])
        self._entries.append(_Entry(new, layers))
        self.size += len(new)

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self.size = 0

    def _drop(self, entry: _Entry) -> None:
        self._entries = [other for other in self._entries if other is not entry]
        self.size -= len(entry.tokens)
