from __future__ import annotations

import itertools
import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.records import Record
from kit19_ray.data.sampling import BottomK, TaskSample, priority, runs, wanted
from kit19_ray.tasks.task import load_tasks
from kit19_ray.utils.hashing import hash64

TASKS = load_tasks(["nsmc", "hatescore"])
NSMC = TASKS["nsmc"]


def record(name: str, line: int = 1, group: str | None = None) -> Record:
    return Record(id=name, group=group or name, place=f"f.tsv:{line}", fields={"text": name})


def sample(records: list[Record], train: int = 5, validation: int = 3, share: float = 0.3) -> TaskSample:
    kept = TaskSample(NSMC, 19, train, validation, share)
    for r in records:
        kept.add(r)
    return kept


names = st.lists(st.text("abcdef", min_size=1, max_size=3), max_size=40)


@given(names, st.integers(0, 8))
def test_bottom_k_is_the_k_smallest_distinct(words: list[str], k: int) -> None:
    kept = BottomK(k)
    for line, word in enumerate(words):
        kept.add(hash64(word), record(word, line))
    expected = sorted(set(words), key=lambda w: (hash64(w), w))[:k]
    assert [r.id for r in kept.records()] == expected


@given(names, st.randoms(use_true_random=False))
def test_order_does_not_matter(words: list[str], shuffler: random.Random) -> None:
    records = [record(w, line) for line, w in enumerate(words)]
    shuffled = list(records)
    shuffler.shuffle(shuffled)
    one, other = sample(records), sample(shuffled)
    for split in ("train", "validation"):
        assert one.records(split) == other.records(split)


@given(names)
def test_a_group_is_never_on_both_sides(words: list[str]) -> None:
    kept = sample([record(w, i, group=w[0]) for i, w in enumerate(words)], 50, 50, 0.5)
    groups = {split: {r.group for r in kept.records(split)} for split in ("train", "validation")}
    assert not groups["train"] & groups["validation"]


def test_the_validation_share_is_about_what_was_asked() -> None:
    kept = sample([record(f"r{i}") for i in range(4000)], 4000, 4000, 0.05)
    assert 150 <= len(kept.records("validation")) <= 250
    assert len(kept.records("train")) + len(kept.records("validation")) == 4000


def test_another_seed_gives_another_sample() -> None:
    records = [record(f"r{i}") for i in range(200)]
    other = TaskSample(NSMC, 20, 5, 3, 0.3)
    for r in records:
        other.add(r)
    assert [r.id for r in sample(records).records("train")] != [r.id for r in other.records("train")]


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
