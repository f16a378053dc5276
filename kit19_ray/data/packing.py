"""Best-fit-decreasing packing of token rows into rows of one length.

    three examples            a a a a | b b b | c c            seq_len 8
    input_ids                 a a a a b b b .      c c . . . . . .
    position_ids              0 1 2 3 0 1 2 0      0 1 0 1 2 3 4 5
    labels                    as each example alone; -100 on the padding

Example boundaries are where the positions restart; nothing else marks them.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kit19_ray.artifacts.schemas import IGNORE

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class TokenRow:
    """One tokenized example: int32 `[length]`, of which the first `num_prompt` are the prompt and are not learned.

    `later` are the lengths of the runs behind the prompt, learned and not in turn; empty where all of it is learned.
    """

    input_ids: Int32
    num_prompt: int
    later: tuple[int, ...] = ()

    def labels(self) -> Int32:
        """The token where it is learned, `IGNORE` elsewhere: int32 `[length]`."""
        found = self.input_ids.copy()
        found[: self.num_prompt] = IGNORE
        start = self.num_prompt
        for place, length in enumerate(self.later):
            if place % 2:
                found[start : start + length] = IGNORE
            start += length
        return found

    @property
    def num_learned(self) -> int:
        """How many tokens are learned."""
        return sum(self.later[::2]) if self.later else len(self.input_ids) - self.num_prompt


def pieces(row: TokenRow, seq_len: int) -> list[TokenRow]:
    """A row that is longer than `seq_len`, which only a plain text may be, in runs of that; each opens unlearned."""
    if len(row.input_ids) <= seq_len:
        return [row]
    return [TokenRow(row.input_ids[at : at + seq_len], 1) for at in range(0, len(row.input_ids), seq_len)]


def assign(lengths: Sequence[int], seq_len: int) -> list[list[int]]:
    """Puts every item into a bin of `seq_len` tokens: longest first, each into the fullest bin with room for it.

    Args:
        lengths: tokens of each item, each in 1..seq_len.

    Returns:
        Item numbers by bin, in ascending order within a bin; ties go to the earlier item and the earlier bin.

    Raises:
        ValueError: an item is empty or longer than `seq_len`.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[item]
        if not 1 <= length <= seq_len:
            raise ValueError(f"an item of {length} tokens does not fit a row of {seq_len}")
        place = bisect.bisect_left(room, (length, -1))
        if place == len(room):
            bins.append([item])
            free, chosen = seq_len, len(bins) - 1
        else:
            free, chosen = room.pop(place)
            bins[chosen].append(item)
        if free > length:
            bisect.insort(room, (free - length, chosen))
    return [sorted(b) for b in bins]


def pack(rows: Sequence[TokenRow], seq_len: int, pad_id: int) -> tuple[Int32, Int32, Int32]:
    """Packs `rows`, in the order given, into `input_ids`, `labels`, `position_ids`, each int32 `[bins, seq_len]`."""
    bins = assign([len(r.input_ids) for r in rows], seq_len)
    input_ids = np.full((len(bins), seq_len), pad_id, np.int32)
    labels = np.full((len(bins), seq_len), IGNORE, np.int32)
    positions = np.zeros((len(bins), seq_len), np.int32)
    for place, items in enumerate(bins):
        start = 0
        for item in items:
            end = start + len(rows[item].input_ids)
            input_ids[place, start:end] = rows[item].input_ids
            labels[place, start:end] = rows[item].labels()
            positions[place, start:end] = np.arange(end - start)
            start = end
        positions[place, start:] = np.arange(seq_len - start)
    return input_ids, labels, positions
