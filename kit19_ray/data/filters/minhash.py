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
import pyarrow as pa

from kit19_ray.data.filters.ngrams import Int64, UInt64, hashes, normalize_letters

if TYPE_CHECKING:
    from datasketch import MinHash

UInt32 = npt.NDArray[np.uint32]

BANDS, ROWS = 12, 5
MOST = 1024  # records of a bucket that one is compared with
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
        # 32 bits are what the affine32 scheme permutes; two n-grams that fall together there are rare beside what is
        # estimated.
        sketch.update_batch(np.unique(hashes(normalize_letters(text)[:_LETTERS]) & np.uint64(0xFFFFFFFF)))
        # Every turn-th permutation is this text's, the same ones in every record: minima are only comparable place by
        # place.
        made[turn :: len(texts)] = sketch.hashvalues[turn :: len(texts)]
    return made


def pack(signatures: Sequence[UInt32]) -> list[pa.Array]:
    """Signatures as a column of 20 bytes a band, so that a band is read without the others."""
    stacked = np.ascontiguousarray(np.stack(signatures) if signatures else np.zeros((0, BANDS * ROWS)), "<u4")
    width = ROWS * 4
    return [
        pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(width),
            len(stacked),
            [None, pa.py_buffer(np.ascontiguousarray(stacked[:, band * ROWS : (band + 1) * ROWS]).tobytes())],
        )
        for band in range(BANDS)
    ]


def unpack(columns: Sequence[pa.ChunkedArray]) -> UInt32:
    """Bands as `pack` wrote them: uint32 `[n, ROWS * len(columns)]`."""
    made = []
    for column in columns:
        array = column.combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        values = np.frombuffer(array.buffers()[1], "<u4")[array.offset * ROWS : (array.offset + len(array)) * ROWS]
        made.append(values.reshape(len(array), ROWS))
    return np.concatenate(made, axis=1).astype(np.uint32)


@dataclass(frozen=True)
class BandMates:
    """Records that meet somebody in a band, by number.

    Attributes:
        key: uint64 `[n]`; those with equal ones meet.
        signatures: uint32 `[n, BANDS * ROWS]`.
        rank: int64 `[n]`; of two near records the one with the larger rank leaves.
        task, source, answer: int64 `[n]`. Within a task only records with equal answers are duplicates, since pairs of
            sentences with opposite labels are near on purpose; across tasks of one source none are.
    """

    key: UInt64
    signatures: UInt32
    rank: Int64
    task: Int64
    source: Int64
    answer: Int64

    def near(self, threshold: float) -> dict[int, int]:
        """Record that leaves -> the one it is near to, as far as this band shows."""
        # By key, then by rank: what a bucket decides follows from the ranks, not from which file was read first.
        order = np.lexsort((self.rank, self.key))
        sorted_keys = self.key[order]
        edges = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1], True])
        found: dict[int, int] = {}
        for start, end in itertools.pairwise(edges):
            if end - start > 1:
                found |= self._in_bucket(order[start:end], threshold)
        return found

    def _in_bucket(self, members: Int64, threshold: float) -> dict[int, int]:
        """`members` by rank. Each is compared with those that stayed before it, the first `MOST` of them.

        Texts with a common opening (a form letter, a licence) share a band without being near: a bucket of n such
        would cost n^2 comparisons. Those that are near meet in other bands too, in smaller company.
        """
        found: dict[int, int] = {}
        stayed = np.empty(min(len(members), MOST), np.int64)
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
            elif count < MOST:
                stayed[count] = member
                count += 1
        return found


def met(keys: UInt64) -> Int64:
    """Which of the records meet another: the places of the keys that stand there more than once, ascending."""
    if not len(keys):
        return np.zeros(0, np.int64)
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    return np.sort(order[np.r_[False, same] | np.r_[same, False]])


def band_keys(band: UInt32) -> UInt64:
    """A 64-bit hash of a band's minima: uint64 `[n]`.

    Args:
        band: uint32 `[n, ROWS]`.
    """
    made = np.zeros(len(band), np.uint64)
    with np.errstate(over="ignore"):
        for column in range(ROWS):
            made = (made ^ band[:, column].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            made ^= made >> np.uint64(32)
    return made
