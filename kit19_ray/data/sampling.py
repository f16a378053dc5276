"""Bottom-k sampling: keep the k records whose hash is smallest.

One pass, memory for k records, and the result depends on the set of records alone: not on their order, the files they
stand in or how many workers read them.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from kit19_ray.data.records import Record
from kit19_ray.utils.hashing import fraction, hash64


@dataclass
class BottomK:
    """The k records with the smallest (priority, id), one per id.

    Equal records have equal ids and so equal priorities; of those, the one whose place sorts first is kept.
    """

    k: int
    _heap: list[tuple[int, str]] = field(default_factory=list)  # (-priority, id): the largest priority on top
    _kept: dict[str, Record] = field(default_factory=dict)

    def add(self, priority: int, record: Record) -> None:
        """Offers a record; `priority` is a function of its id."""
        held = self._kept.get(record.id)
        if held is not None:
            if _place_key(record) < _place_key(held):
                self._kept[record.id] = record
        elif len(self._heap) < self.k:
            heapq.heappush(self._heap, (-priority, record.id))
            self._kept[record.id] = record
        elif self.k and -self._heap[0][0] > priority:
            _, evicted = heapq.heapreplace(self._heap, (-priority, record.id))
            del self._kept[evicted]
            self._kept[record.id] = record

    def records(self) -> list[Record]:
        """The sample, smallest priority first."""
        return [self._kept[id_] for _, id_ in sorted((-p, i) for p, i in self._heap)]


def _place_key(record: Record) -> tuple[str, int]:
    file, _, line = record.place.rpartition(":")
    return file, int(line)


@dataclass
class Sample:
    """A task's train and validation samples.

    Args:
        task, seed: what the hashes are salted with.
        train, validation: records to keep of each split.
        validation_fraction: share of groups that belongs to validation.
    """

    task: str
    seed: int
    train: int
    validation: int
    validation_fraction: float

    def __post_init__(self) -> None:
        self._splits = {"train": BottomK(self.train), "validation": BottomK(self.validation)}

    def add(self, record: Record) -> None:
        """Offers a record to the split its group belongs to."""
        held_out = fraction(self.seed, "split", self.task, record.group) < self.validation_fraction
        split = "validation" if held_out else "train"
        self._splits[split].add(hash64(self.seed, "sample", record.id), record)

    def records(self, split: str) -> list[Record]:
        """The sample of `split`, smallest priority first."""
        return self._splits[split].records()
