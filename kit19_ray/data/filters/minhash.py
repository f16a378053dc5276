"""Near duplicates: MinHash signatures, and the pairs that meet in a band of them.

    signature   60 minima of n-grams, of each of the record's texts in turn    m m m m m | m m m m m | ... 12 bands of 5
    band        records that agree in one meet; two of Jaccard similarity s do so in some band with 1 - (1 - s^5)^12:
                0.8 -> 99 %, 0.5 -> 32 %, 0.3 -> 3 %; whether they are near is then estimated from the whole signature

Bands are independent of one another, so they are looked through side by side. In each, a record leaves when one that
stands before it in `rank` is near; so what leaves is a function of the set alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kit19_ray.data.filters.ngrams import Int64, hashes, letters

if TYPE_CHECKING:
    from datasketch import MinHash

UInt32 = npt.NDArray[np.uint32]

BANDS, ROWS = 12, 5
_LETTERS = 4000  # of a text that are looked at: the rest of a long one seldom decides
_SEED = 19


@lru_cache(maxsize=1)
def _empty() -> MinHash:
    from datasketch import MinHash

    return MinHash(num_perm=BANDS * ROWS, seed=_SEED, hashfunc=int, scheme="affine32")


def signature(texts: Sequence[str]) -> UInt32:
    """The MinHash signature of a record's texts: uint32 `[BANDS * ROWS]`.

    The texts take turns in it, so each counts alike: two questions on one long paragraph are half alike, not near.
    """
    made = np.empty(BANDS * ROWS, np.uint32)
    for turn, text in enumerate(texts):
        sketch = _empty().copy()
        sketch.update_batch(np.unique(hashes(letters(text)[:_LETTERS]) & np.uint64(0xFFFFFFFF)))
        made[turn :: len(texts)] = sketch.hashvalues[turn :: len(texts)]
    return made


@dataclass(frozen=True)
class Candidates:
    """Records of all tasks, by number.

    Attributes:
        signatures: uint32 `[n, BANDS * ROWS]`.
        rank: int64 `[n]`; of two near records the one with the larger rank leaves.
        task, source, answer: int64 `[n]`. Within a task only records with equal answers are duplicates, since pairs of
            sentences with opposite labels are near on purpose; across tasks of one source none are.
    """

    signatures: UInt32
    rank: Int64
    task: Int64
    source: Int64
    answer: Int64

    def in_band(self, band: int, threshold: float) -> dict[int, int]:
        """Record that leaves -> the one it is near to, as far as this band shows."""
        columns = np.ascontiguousarray(self.signatures[:, band * ROWS : (band + 1) * ROWS])
        keys = columns.view([("", np.uint32)] * ROWS).reshape(-1)
        order = np.lexsort((self.rank, np.unique(keys, return_inverse=True)[1]))
        sorted_keys = keys[order]
        edges = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1], True])
        found: dict[int, int] = {}
        for start, end in itertools.pairwise(edges):
            if end - start > 1:
                found |= self._in_bucket(order[start:end], threshold)
        return found

    def _in_bucket(self, members: Int64, threshold: float) -> dict[int, int]:
        """`members` by rank. Each is compared with those that stayed before it."""
        found: dict[int, int] = {}
        stayed = np.empty(len(members), np.int64)
        count = 0
        for member in members:
            before = stayed[:count]
            near = (self.signatures[before] == self.signatures[member]).mean(axis=1) >= threshold
            same_task = self.task[before] == self.task[member]
            comparable = np.where(
                same_task, self.answer[before] == self.answer[member], self.source[before] != self.source[member]
            )
            hits = np.flatnonzero(near & comparable)
            if len(hits):
                found[int(member)] = int(before[hits[0]])
            else:
                stayed[count] = member
                count += 1
        return found


def merged(bands: list[dict[int, int]], rank: Int64) -> dict[int, int]:
    """What leaves over all bands, each with the nearest to the front of those it was found near to."""
    found: dict[int, int] = {}
    for band in bands:
        for gone, kept in band.items():
            if gone not in found or rank[kept] < rank[found[gone]]:
                found[gone] = kept
    return found
