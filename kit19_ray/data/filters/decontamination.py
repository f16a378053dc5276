"""Training rows that hold an evaluation item, whole or nearly so.

An item is one or more texts, such as a paragraph and its question; a row holds it when it holds each of them, at places
of their own. A row holds a text when, in letters alone (so spaces, punctuation and case do not matter),

    the text is part of it,
    or the text but for ONE run of at most 5 letters, a changed word, is: before and after it the two agree,
    or, for a text of `LONG` letters or more, most of its 5-letter n-grams stand together in it (`gates.contained`).

A run is at most a fourth of its text. The question is not asked the other way round: a row that is part of an item
("정말 재미있게 봤어요") is no leak. Where one word makes another item, as in pairs of sentences that differ by it, only
a text as it is counts (`exact`).

    item    어제 본 영화는 정말 |지루했|다고 친구가 말했다          held: one run differs, of 3 letters
    row     어제 본 영화는 정말 |재미있었|다고 친구가 말했다
    row     영화는 정말 지루했다                               not held: what is missing stands at two places

Texts of fewer than `SHORT` letters say little by themselves: one of `WHOLE` has to be there as it is, a shorter one
as a whole field of the row. An item that has no more than that counts only where each text is equal, and one of fewer
than `LEAST` ("재미있어요") is anybody's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kit19_ray.data.filters.ngrams import SIZE, Int64, UInt64, hashes, ngram_hashes, normalize_letters

SHORT, WHOLE, LEAST, LONG = 16, 15, 8, 50  # letters
_RUN = 5  # letters of a word that may have been changed; longer ones are rare in Korean
_GROWN = 2 * _RUN  # letters that may stand in a row for the changed run
_LOST = _RUN + SIZE - 1  # n-grams that a changed run takes away
_COMMON = 64  # an n-gram of more items than this ("하는것이") finds too many of them to be a lead
_GAP = "\0"  # between the texts of a row; no letter, so no n-gram with it is an item's


class _Row:
    """A row's letters; its n-grams are sorted once, when a long text first asks for them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._sorted: tuple[UInt64, Int64] | None = None

    def places(self, grams: UInt64) -> tuple[Int64, Int64]:
        """Where n-grams of `grams` (sorted) stand in the row, in order: (place, index into `grams`)."""
        if self._sorted is None:
            found = hashes(self.text)
            order = np.argsort(found, kind="stable")
            self._sorted = found[order], order
        values, order = self._sorted
        starts, ends = np.searchsorted(values, grams, "left"), np.searchsorted(values, grams, "right")
        counts = ends - starts
        which = np.repeat(np.arange(len(grams)), counts)
        skipped = np.repeat(np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        at = order[np.repeat(starts, counts) + np.arange(counts.sum()) - skipped]
        by_place = np.argsort(at, kind="stable")
        return at[by_place], which[by_place]


def _run(text: str) -> int:
    """Letters of a text that may have been changed, at one place."""
    return min(_RUN, len(text) // 4) if len(text) >= LEAST else 0


def but_a_run(row: str, text: str) -> bool:
    """Whether `row` has all of `text` but one run of a few letters.

    Half of what is intact stands before the run or behind it, so the text's first or its last letters are found as
    they are; from there the two are read until they differ.
    """
    return _from_the_front(row, text) or _from_the_front(row[::-1], text[::-1])


def _from_the_front(row: str, text: str) -> bool:
    """The same where the run stands in the second half of `text`."""
    run = _run(text)
    # At least half of what is intact stands on one side of the run, so this much of the text is in the row as it is
    # if the run stands in the second half; `but_a_run` turns both round for the other case.
    head = text[: (len(text) - run + 1) // 2]
    at = row.find(head)
    while at >= 0:
        same = len(head)
        while same < len(text) and row.startswith(text[same], at + same):
            same += 1
        # Greedy: reading on as far as the two agree puts the run as late as it can stand. What it replaced may be as
        # long as _GROWN, so the rest is looked for within that.
        rest = text[same + run :]  # empty: the text's end is the run
        if row.find(rest, at + same, at + same + _GROWN + len(rest)) >= 0:
            return True
        # The head may stand in the row more than once ("하는 것이"), and only a later place need go on right.
        at = row.find(head, at + 1)
    return False


def equal_but_a_run(field: str, text: str) -> bool:
    """Whether a whole field equals `text` but for one run of a few letters."""
    shorter = min(len(field), len(text))
    before = next((i for i in range(shorter) if field[i] != text[i]), shorter)
    behind = next((i for i in range(shorter - before) if field[-1 - i] != text[-1 - i]), shorter - before)
    return len(text) - before - behind <= _run(text) and len(field) - before - behind <= _RUN


def _together(row: _Row, text: str, contained: float) -> bool:
    """Whether a stretch of the row, at most twice as long as `text`, has enough of its n-grams, in whatever order."""
    grams = np.unique(hashes(text))
    least = int(np.ceil(contained * len(grams)))
    places, which = (found.tolist() for found in row.places(grams))
    inside: Counter[int] = Counter()
    first = 0
    for place, gram in zip(places, which, strict=True):
        inside[gram] += 1
        # A window of twice the text: n-grams of a common opening that are strewn over a long article are no copy of it.
        while place - places[first] >= 2 * len(text):
            inside[which[first]] -= 1
            if not inside[which[first]]:
                del inside[which[first]]
            first += 1
        # Distinct n-grams, not hits: a row that says one phrase ten times holds one phrase.
        if len(inside) >= least:
            return True
    return False


@dataclass
class EvaluationIndex:
    """The n-grams of every item, ready to be looked up by many rows at once; built by `build`."""

    names: list[str]
    exact: npt.NDArray[np.bool_]  # [names], whether only a text as it is counts
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
            rows: the fields of each row, in letters (`ngrams.normalize_letters`).
        """
        return [None if item is None else self.names[int(self.sets[item])] for item in self.items(rows)]

    def items(self, rows: Sequence[Sequence[str]]) -> list[int | None]:
        """For each row an item it holds, the first in the index, as its place in `texts`; or None."""
        joined = [_GAP.join(row) for row in rows]
        found = [self._short(row) for row in rows]
        read: dict[int, _Row] = {}
        for row, item in self._candidates(joined):
            if found[row] is None:
                looked_at = read.setdefault(row, _Row(joined[row]))
                if self._holds(looked_at, self.texts[item], bool(self.exact[self.sets[item]])):
                    found[row] = item
        return found

    def _short(self, row: Sequence[str]) -> int | None:
        for text in row:
            for item in self.short.get(text, ()):
                if Counter(self.texts[item]) <= Counter(row):
                    return item
        return None

    def _candidates(self, joined: list[str]) -> list[tuple[int, int]]:
        """(row, item) pairs with enough n-grams in common, in order."""
        values, owner = ngram_hashes(joined)
        if not len(values) or not len(self.grams):
            return []
        place = np.minimum(np.searchsorted(self.grams, values), len(self.grams) - 1)
        hit = self.grams[place] == values
        # An n-gram counts once a row; both in one number, for numpy sorts numbers ten times faster than pairs.
        rows, grams = np.divmod(np.unique(owner[hit] * len(self.grams) + place[hit]), len(self.grams))
        counts = self.starts[grams + 1] - self.starts[grams]
        offsets = np.repeat(self.starts[grams] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        items = self.postings[np.arange(counts.sum()) + offsets].astype(np.int64)
        # (row, item) as one number, so that one sort counts them; 64 bits hold any batch times any number of items.
        keys, shared = np.unique(np.repeat(rows, counts) * len(self.texts) + items, return_counts=True)
        keys = keys[shared >= self.need[keys % len(self.texts)]]
        return [(int(key) // len(self.texts), int(key) % len(self.texts)) for key in keys]

    def _holds(self, row: _Row, texts: Sequence[str], exact: bool) -> bool:
        """Whether each text has a place of its own in the row; what is there as it is has the first choice."""
        # Borders at both ends, so that a short text can be asked for as a whole field by one `in`.
        left = f"{_GAP}{row.text}{_GAP}"
        changed: list[str] = []
        # The longest first: it has the fewest places to stand, and must not find its own taken by a part of it.
        for text in sorted(texts, key=len, reverse=True):
            wanted = text if len(text) >= WHOLE else f"{_GAP}{text}{_GAP}"
            if wanted not in left:
                changed.append(text)
            # Taken out: a question that is part of its paragraph has to be there a second time to count. The gap keeps
            # what stood on either side from making a new run.
            left = left.replace(wanted, _GAP, 1)
        if exact:
            return not changed
        return all(
            any(equal_but_a_run(part, text) for part in left.split(_GAP))
            if len(text) < SHORT
            else but_a_run(left, text) or (len(text) >= LONG and _together(row, text, self.contained))
            for text in changed
        )


def build(
    sets: Iterable[tuple[str, Iterable[Sequence[str]]]], contained: float, exact: Collection[str] = ()
) -> EvaluationIndex:
    """The index of (name, items) pairs; items that are equal in letters are kept once.

    Args:
        contained: share of a long text's n-grams that is enough.
        exact: names of the sets whose texts have to be there as they are.
    """
    names: list[str] = []
    of_set: list[int] = []
    texts: dict[tuple[str, ...], int] = {}
    for name, items in sets:
        names.append(name)
        for item in items:
            plain = tuple(text for text in map(normalize_letters, item) if text)
            # setdefault gives the number that is new only the first time, so equal items of two sets belong to the
            # first set.
            if sum(map(len, plain)) >= LEAST and texts.setdefault(plain, len(texts)) == len(of_set):
                of_set.append(len(names) - 1)
    kept = list(texts)
    short: dict[str, list[int]] = {}
    long: list[int] = []
    for number, item in enumerate(kept):
        if sum(map(len, item)) < WHOLE:
            short.setdefault(item[0], []).append(number)
        else:
            long.append(number)
    parts = [(number, text) for number in long for text in kept[number]]
    values, part = ngram_hashes([text for _, text in parts])
    of_item = np.asarray([number for number, _ in parts], np.int32)[part]
    order = np.lexsort((of_item, values))
    values, of_item = values[order], of_item[order]
    once = np.ones(len(values), bool)  # an n-gram counts once an item
    once[1:] = (values[1:] != values[:-1]) | (of_item[1:] != of_item[:-1])
    values, of_item = values[once], of_item[once]
    grams, counts = np.unique(values, return_counts=True)
    # Common n-grams are left out of the postings and of `need` alike, so a lead asks only for the rare ones.
    rare = counts <= _COMMON
    wanted = np.repeat(rare, counts)
    postings = of_item[wanted]
    lost = np.array([sum(_losable(text, contained) for text in item) for item in kept], np.int64)
    # What an item has of rare n-grams, less all that a changed row may lack: a lower bound of what a row that holds it
    # shares, so that most rows are never looked at letter by letter. At least one, or every row would be a lead for an
    # item of common phrases.
    need = np.maximum(1, np.bincount(postings, minlength=len(kept)) - lost)
    starts = np.concatenate([[0], np.cumsum(counts[rare])]).astype(np.int64)
    return EvaluationIndex(
        names=names,
        exact=np.array([name in exact for name in names], bool),
        sets=np.asarray(of_set, np.int32),
        texts=kept,
        contained=contained,
        need=need.astype(np.int64),
        grams=grams[rare],
        starts=starts,
        postings=postings,
        short=short,
    )


def _losable(text: str, contained: float) -> int:
    """N-grams of a text that a row which holds it may lack."""
    many = int((1 - contained) * len(text)) if len(text) >= LONG else 0
    return max(_LOST, many)
