from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.artifacts.schemas import ExampleRow
from kit19_ray.data import examples
from kit19_ray.data.examples import Planned
from kit19_ray.data.inspect.describe_task import sample_records
from kit19_ray.data.records import Record, to_record
from kit19_ray.sources.readers.base import SourceRow
from kit19_ray.tasks.task import Task, load_tasks, withhold


@pytest.fixture(scope="module")
def nsmc() -> Task:
    return load_tasks(["nsmc"])["nsmc"]


def records(task: Task, n: int) -> list[Record]:
    made = [
        to_record(
            task,
            "f.txt",
            SourceRow(i + 1, {"text": f"{i}번째 영화 감상", "label": ("positive", "negative")[i % 2]}, None),
        )
        for i in range(n)
    ]
    assert all(isinstance(r, Record) for r in made)
    return [r for r in made if isinstance(r, Record)]


def plan(task: Task, held: list[Record], quota: int, repeat: bool = True, split: str = "train") -> list[Planned]:
    """The first examples of these records: each with its first template, then each with its second, and so on."""
    orders = [examples.templates(task, record, 19, split) for record in held]
    turns = itertools.zip_longest(*orders) if repeat else [[order[0] for order in orders]]
    made = [
        Planned(record, template, turn)
        for turn, templates in enumerate(turns)
        for record, template in zip(held, templates, strict=True)
        if template
    ]
    return made[:quota]


def rows(task: Task, planned: list[Planned]) -> list[ExampleRow]:
    return [examples.render(task, p, "train", 19) for p in planned]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text": "좋다"}, "missing_label"),
        ({"text": "", "label": "positive"}, "empty_text"),
        ({"text": "좋다", "label": "neutral"}, "unknown_label"),
    ],
)
def test_a_row_that_is_no_record_has_a_reason(nsmc: Task, fields: dict[str, str], reason: str) -> None:
    assert to_record(nsmc, "f.txt", SourceRow(3, fields, None)) == reason


def test_equal_rows_have_equal_ids_and_other_labels_share_a_group(nsmc: Task) -> None:
    raws = [
        SourceRow(i, {"text": "같은 글", "label": label}, None)
        for i, label in enumerate(("positive", "positive", "negative"))
    ]
    one, same, contradicting = (to_record(nsmc, "f.txt", r) for r in raws)
    assert isinstance(one, Record) and isinstance(same, Record) and isinstance(contradicting, Record)
    assert one.id == same.id != contradicting.id
    assert one.group == contradicting.group


@given(n=st.integers(1, 12), quota=st.integers(1, 200))
def test_a_repeated_record_meets_another_template_each_time(n: int, quota: int) -> None:
    task = load_tasks(["nsmc"])["nsmc"]
    planned = plan(task, records(task, n), quota)
    assert len(planned) == min(quota, n * len(task.spec.templates))
    pairs = Counter((p.record.id, p.template.name) for p in planned)
    assert set(pairs.values()) == {1}
    uses = Counter(p.record.id for p in planned)
    assert max(uses.values()) - min(uses.values() if len(uses) == n else [0]) <= 1 or len(planned) < n


def test_without_repeats_each_record_is_used_once(nsmc: Task) -> None:
    assert len(plan(nsmc, records(nsmc, 4), 100, repeat=False)) == 4


def test_an_example_does_not_depend_on_its_neighbours(nsmc: Task) -> None:
    many = {r["id"]: r for r in rows(nsmc, plan(nsmc, records(nsmc, 9), 9))}
    few = {r["id"]: r for r in rows(nsmc, plan(nsmc, records(nsmc, 3), 3))}
    assert few.items() <= many.items()


def test_candidates_hold_the_output_at_the_label(nsmc: Task) -> None:
    for row in rows(nsmc, plan(nsmc, records(nsmc, 6), 60)):
        assert row["candidates"][row["label"]] == row["output"]
        assert len(set(row["candidates"])) == 2


def test_every_phrasing_of_a_template_is_used(nsmc: Task) -> None:
    shapes: dict[str, set[str]] = {}
    for row in rows(nsmc, plan(nsmc, records(nsmc, 60), 600)):
        shapes.setdefault(row["template"], set()).add(row["output"])
    # A template that asks for the bare word has one phrasing, so the file says how many there are.
    expected = {t.name: len(nsmc.labels) * len(t.outputs) for t in nsmc.spec.templates}
    assert {name: len(outputs) for name, outputs in shapes.items()} == expected
    assert max(expected.values()) > len(nsmc.labels)


def test_held_out_templates_are_for_validation_rows_only() -> None:
    known = [template.name for template in load_tasks(["nsmc"])["nsmc"].spec.templates]
    (task,) = withhold(load_tasks(["nsmc"]), {"nsmc": known[:1]}).values()
    held = [Record(f"r{n}", "", f"f:{n}", dict.fromkeys(task.spec.fields, "글")) for n in range(200)]
    used = {split: {p.template.name for p in plan(task, held, 5000, split=split)} for split in ("train", "validation")}
    assert used == {"train": set(known[1:]), "validation": set(known)}


def test_a_free_answer_is_used_a_few_times_only() -> None:
    for name, free in (("kowiki_qa", 3), ("sae4k", 2)):
        task = load_tasks([name])[name]
        for record in sample_records(task)[:20]:
            every = examples.templates(task, record, 19, "train")
            few = examples.templates(task, record, 19, "train", free)
            assert sum(map(task.is_free, few)) == min(free, sum(map(task.is_free, every)))
            assert [t.name for t in few if not task.is_free(t)] == [t.name for t in every if not task.is_free(t)]
            assert examples.num_fitting(task, record, "train") == len(every)
