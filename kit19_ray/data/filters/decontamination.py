"""Training rows that hold an evaluation item, whole or nearly so.

An item is one or more texts, such as a paragraph and its question; a row holds it when it holds each of them. A row
holds a text when, in letters alone (so spaces, punctuation and case do not matter),

    the text is part of it,
    or most of the text's 5-letter n-grams are in it, in whatever order (`gates.contained`),
    or all of them but those one changed word takes away are, and the two agree in an alignment (rapidfuzz).

Texts of fewer than `SHORT` letters say little by themselves: an item that has no more counts only where whole fields of
the row equal it, and one of fewer than `LEAST` ("재미있어요") is anybody's and does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kit19_ray.data.filters.ngrams import SIZE, Int64, UInt64, batch_hashes, letters

SHORT, LEAST = 16, 8  # letters
_WORD = 5  # letters of a word that may have been changed; longer ones are rare in Korean
_LOST = _WORD + SIZE - 1  # n-grams that a changed word takes away
_COMMON = 64  # an n-gram of more items than this ("하는것이") finds too many of them to be a lead
_GAP = "\0"  # between the texts of a row; no letter, so no n-gram with it is an item's


@dataclass
class Index:
    """The n-grams of every item, ready to be looked up by many rows at once; built by `build`."""

    names: list[str]
    sets: npt.NDArray[np.int32]  # [items], into names
    texts: list[tuple[str, ...]]  # [items], letters
    contained: float
    need: Int64  # [items], n-grams a row must share to be looked at
    grams: UInt64  # [m], sorted
    starts: Int64  # [m + 1], into postings
    postings: npt.NDArray[np.int32]  # items by n-gram
    short: dict[str, list[int]] = field(default_factory=dict)  # first text -> items of few letters

    def match(self, rows: Sequence[Sequence[str]]) -> list[str | None]:
        """For each row the name of a set it holds an item of, or None.

        Args:
            rows: the fields of each row, in letters (`ngrams.letters`).
        """
        joined = [_GAP.join(row) for row in rows]
        found: list[str | None] = [self._short(row) for row in rows]
        for row, item in self._leads(joined):
            if found[row] is None and all(self._holds(joined[row], text) for text in self.texts[item]):
                found[row] = self.names[int(self.sets[item])]
        return found

    def _short(self, row: Sequence[str]) -> str | None:
        for text in row:
            for item in self.short.get(text, ()):
                if all(other in row for other in self.texts[item]):
                    return self.names[int(self.sets[item])]
        return None

    def _leads(self, joined: list[str]) -> list[tuple[int, int]]:
        """(row, item) pairs with enough n-grams in common, in order."""
        hashes, owner = batch_hashes(joined)
        if not len(hashes) or not len(self.grams):
            return []
        place = np.minimum(np.searchsorted(self.grams, hashes), len(self.grams) - 1)
        hit = self.grams[place] == hashes
        pairs = np.unique(np.stack([owner[hit], place[hit]], axis=1), axis=0)  # an n-gram counts once a row
        counts = self.starts[pairs[:, 1] + 1] - self.starts[pairs[:, 1]]
        offsets = np.repeat(self.starts[pairs[:, 1]] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        items = self.postings[np.arange(counts.sum()) + offsets].astype(np.int64)
        keys, shared = np.unique(np.repeat(pairs[:, 0], counts) * len(self.texts) + items, return_counts=True)
        keys = keys[shared >= self.need[keys % len(self.texts)]]
        return [(int(key) // len(self.texts), int(key) % len(self.texts)) for key in keys]

    def _holds(self, row: str, text: str) -> bool:
        from rapidfuzz import fuzz

        if text in row:
            return True
        least = 100 * max(1 - _WORD / max(len(text), SHORT), 0)
        if len(text) < SHORT:
            return bool(fuzz.partial_ratio(text, row) >= least)
        wanted = _grams(text)
        shared = len(wanted & _grams(row)) / len(wanted)
        if shared >= self.contained:
            return True
        return shared >= 1 - _LOST / len(wanted) and bool(fuzz.partial_ratio(text, row) >= min(least, 90))


def build(sets: Iterable[tuple[str, Iterable[Sequence[str]]]], contained: float) -> Index:
    """The index of (name, items) pairs; items that are equal in letters are kept once."""
    names: list[str] = []
    of_set: list[int] = []
    texts: dict[tuple[str, ...], int] = {}
    for name, items in sets:
        names.append(name)
        for item in items:
            plain = tuple(text for text in map(letters, item) if text)
            if sum(map(len, plain)) >= LEAST and texts.setdefault(plain, len(texts)) == len(of_set):
                of_set.append(len(names) - 1)
    kept = list(texts)
    short: dict[str, list[int]] = {}
    long: list[int] = []
    for number, item in enumerate(kept):
        if sum(map(len, item)) < SHORT:
            short.setdefault(item[0], []).append(number)
        else:
            long.append(number)
    hashes, owner = batch_hashes([_GAP.join(kept[number]) for number in long])
    pairs = np.unique(np.stack([hashes, np.asarray(long, np.uint64)[owner]], axis=1), axis=0)
    grams, counts = np.unique(pairs[:, 0], return_counts=True)
    rare = counts <= _COMMON
    wanted = np.repeat(rare, counts)
    postings = pairs[wanted, 1].astype(np.int32)
    size = np.bincount(pairs[:, 1].astype(np.int64), minlength=len(kept))
    lost = np.maximum(_LOST, np.floor((1 - contained) * size)).astype(np.int64)
    need = np.maximum(1, np.bincount(postings, minlength=len(kept)) - lost)
    starts = np.concatenate([[0], np.cumsum(counts[rare])]).astype(np.int64)
    return Index(
        names=names,
        sets=np.asarray(of_set, np.int32),
        texts=kept,
        contained=contained,
        need=need.astype(np.int64),
        grams=grams[rare],
        starts=starts,
        postings=postings,
        short=short,
    )


def _grams(text: str) -> set[str]:
    return {text[i : i + SIZE] for i in range(len(text) - SIZE + 1)}
