"""Copies of a text within a task: with the same answer, or with another.

text A, label x   first         stays ............... unless a copy with label y comes: then all copies leave
text A, label x   again         exact_duplicate
text A, label y   contradictory
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hash64

EXACT, CONTRADICTORY = "exact_duplicate", "contradictory"


def plain(text: str) -> str:
    """`text` in NFKC without case and spaces: two texts that agree in it are one text."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_key(task: Task, fields: Mapping[str, str]) -> int:
    """A 64-bit hash of what a record asks: the fields a prompt shows, or every field where the answer is a text."""
    names = task.asked_fields if task.spec.answer else task.spec.fields
    return hash64(*(plain(fields[name]) for name in names))


@dataclass
class DuplicateTracker:
    """The first row of each key, and which of them were contradicted; a bucket of a task's keys at a time."""

    _first: dict[int, tuple[str, int]] = field(default_factory=dict)  # key -> (answer, row) of the first copy
    _contradicted: set[int] = field(default_factory=set)

    def reasons(self, rows: Iterable[tuple[int, str]]) -> list[str | None]:
        """Why each row leaves, None for those that stay.

        Args:
            rows: key and answer of every row of the bucket, in the order of the files.
        """
        found = [self._reason(key, answer, row) for row, (key, answer) in enumerate(rows)]
        # Afterwards: the first copy was let through before anybody contradicted it.
        for key in self._contradicted:
            found[self._first[key][1]] = CONTRADICTORY
        return found

    def _reason(self, key: int, answer: str, row: int) -> str | None:
        first = self._first.setdefault(key, (answer, row))
        if first[1] == row:
            return None
        # Once contradicted, a copy with the first answer leaves as contradictory too: which label is right nobody
        # knows.
        if first[0] == answer and key not in self._contradicted:
            return EXACT
        self._contradicted.add(key)
        return CONTRADICTORY
