"""What one task's records are held against, in one pass: those seen before, with the same answer or another.

text A, label x   first         stays ............... unless a copy with label y comes: then all copies leave
text A, label x   again         exact_duplicate
text A, label y   contradictory
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from kit19_ray.data.records import Record
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hash64

EXACT, CONTRADICTORY = "exact_duplicate", "contradictory"


def plain(text: str) -> str:
    """`text` in NFKC without case and spaces: two texts that agree in it are one text."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_key(task: Task, record: Record) -> int:
    """A 64-bit hash of what the record asks: the fields a prompt shows, or every field where the answer is a text."""
    names = task.asked_fields if task.spec.answer else task.spec.fields
    return hash64(*(plain(record.fields[name]) for name in names))


@dataclass
class Seen:
    """The keys of a task's records, some 70 bytes each, and where the contradicted ones first stood."""

    _first: dict[int, tuple[str, str]] = field(default_factory=dict)  # key -> (answer, place) of the first copy
    contradicted: dict[int, str] = field(default_factory=dict)
    """Key -> place of the first copy of a text that has two answers."""

    def reason(self, key: int, answer: str, place: str) -> str | None:
        """Why a record leaves, or None for the first of its key."""
        first = self._first.setdefault(key, (answer, place))
        if first[1] == place:
            return None
        if first[0] == answer and key not in self.contradicted:
            return EXACT
        self.contradicted.setdefault(key, first[1])
        return CONTRADICTORY
