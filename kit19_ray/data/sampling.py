"""Bottom-k sampling: the k records whose hash is smallest.

The result depends on the set of records alone: not on their order, the files they stand in or how many workers read
them. A sample of any size is cut into runs of the hash, which tasks then take up side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kit19_ray.tasks.task import Task
from kit19_ray.utils.hashing import hash64

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


def place_key(place: str) -> tuple[str, int]:
    """What places (`file:line`) are sorted by."""
    file, _, line = place.rpartition(":")
    return file, int(line)
