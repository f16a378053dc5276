from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.sampling import priority, runs, wanted
from kit19_ray.tasks.task import load_tasks
from kit19_ray.utils.hashing import hash64

TASKS = load_tasks(["nsmc", "hatescore"])
NSMC = TASKS["nsmc"]


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 40), st.integers(1, 9))
def test_runs_are_the_bottom_k_in_ranges(priorities: list[int], k: int, size: int) -> None:
    found = runs(np.array(priorities, np.uint64), k, size)
    assert sum(run.take for run in found) == min(k, len(priorities))
    taken = []
    for run in found:
        inside = sorted(p for p in priorities if run.low <= p <= run.high)
        taken += inside[: run.take]
    assert taken == sorted(priorities)[:k]
    assert all(one.high < other.low for one, other in itertools.pairwise(found))


def test_nothing_is_drawn_of_a_split_that_is_not_wanted() -> None:
    assert wanted("validation", 0) == 0 and wanted("train", 10) == 1020


def test_what_is_drawn_first_has_the_smaller_priorities() -> None:
    task = TASKS["hatescore"]
    origins = {origin: [priority(task, 19, f"id{n}", {"origin": origin}) for n in range(50)]
               for origin in ("온라인 댓글", "규칙 기반 생성")}  # fmt: skip
    assert max(origins["온라인 댓글"]) < min(origins["규칙 기반 생성"])
    assert priority(NSMC, 19, "id0", {}) == hash64(19, "sample", "id0")
