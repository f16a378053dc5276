"""Bottom-k sampling: the k records whose hash is smallest.

The result depends on the set of records alone: not on their order, the files they stand in or how many workers read
them. A sample of any size is cut into runs of the hash, which tasks then take up side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kit19_ray.data.records import Record
from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import fraction, hash64

UInt64 = npt.NDArray[np.uint64]
_SPARE = {"train": 1000, "validation": 100}  # records kept beyond twice what is wanted, for near duplicates to leave


def wanted(split: str, examples: int) -> int:
    """Records drawn of a split of which `examples` are wanted, so that near duplicates can leave."""
    # Near duplicates are found after the draw, so more is drawn than is wanted; a source that loses more than that
    # comes out short, which the manifest says (`shortfall`).
    return 2 * examples + _SPARE[split] if examples else 0


def priority(task: Task, seed: int, id_: str, fields: Mapping[str, str]) -> int:
    """What a record is drawn by, the smaller first: 64 bits of a hash, of which the first says `draw_first`."""
    drawn = hash64(seed, "sample", id_)
    if not task.spec.draw_first:
        return drawn
    return drawn >> 1 | (0 if task.drawn_first(fields) else 1 << 63)


@dataclass(frozen=True)
class RankRange:
    """Records with `low` <= priority <= `high`, of which the first `take` by (priority, id) belong to the sample."""

    low: int
    high: int
    take: int


def runs(priorities: UInt64, k: int, size: int) -> list[RankRange]:
    """The bottom k, as runs of about `size` records each; together they hold exactly the sample.

    Args:
        priorities: of all records, in any order.
    """
    chosen = np.sort(priorities)[:k]
    found: list[RankRange] = []
    start = 0
    while start < len(chosen):
        # Equal priorities stay in one run, so that a run is a range.
        end = int(np.searchsorted(chosen, chosen[min(start + size, len(chosen)) - 1], "right"))
        found.append(RankRange(int(chosen[start]), int(chosen[end - 1]), end - start))
        start = end
    return found


@dataclass
class BottomK:
    """The k records with the smallest (priority, id), one per id, as they come: for a part of a source.

    Equal records have equal ids and so equal priorities; of those, the one whose place sorts first is kept.
    """

    k: int
    _heap: list[tuple[int, str]] = field(default_factory=list)  # (-priority, id): the largest priority on top
    _kept: dict[str, Record] = field(default_factory=dict)

    def add(self, priority: int, record: Record) -> None:
        """Offers a record; `priority` is a function of its id."""
        held = self._kept.get(record.id)
        if held is not None:
            # Equal records stand in several files; which one is named must not depend on which worker read first.
            if place_key(record.place) < place_key(held.place):
                self._kept[record.id] = record
        elif len(self._heap) < self.k:
            heapq.heappush(self._heap, (-priority, record.id))
            self._kept[record.id] = record
        # Strictly larger: at a tie the held one stays, and ties are two ids with one 64-bit hash.
        elif self.k and -self._heap[0][0] > priority:
            _, evicted = heapq.heapreplace(self._heap, (-priority, record.id))
            del self._kept[evicted]
            self._kept[record.id] = record

    def records(self) -> list[Record]:
        """The sample, smallest priority first."""
        return [self._kept[id_] for _, id_ in sorted((-p, i) for p, i in self._heap)]


def place_key(place: str) -> tuple[str, int]:
    """What places (`file:line`) are sorted by."""
    file, _, line = place.rpartition(":")
    return file, int(line)


@dataclass
class TaskSample:
    """A task's train and validation samples.

    Args:
        task, seed: what the hashes are salted with.
        train, validation: records to keep of each split.
        validation_fraction: share of groups that belongs to validation.
    """

    task: Task
    seed: int
    train: int
    validation: int
    validation_fraction: float

    def __post_init__(self) -> None:
        self._splits = {"train": BottomK(self.train), "validation": BottomK(self.validation)}

    def add(self, record: Record) -> None:
        """Offers a record to the split its group belongs to."""
        # By the GROUP, so that two questions on one paragraph fall on the same side: the answer to one is in the other.
        held_out = fraction(self.seed, "split", self.task.name, record.group) < self.validation_fraction
        split = "validation" if held_out else "train"
        self._splits[split].add(priority(self.task, self.seed, record.id, record.fields), record)

    def records(self, split: str) -> list[Record]:
        """The sample of `split`, smallest priority first."""
        return self._splits[split].records()
