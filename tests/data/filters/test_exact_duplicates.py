"""Copies of a text with one answer, and with two."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.filters.exact_duplicates import CONTRADICTORY, EXACT, Seen, content_key, plain
from kit19_ray.data.records import Record
from kit19_ray.tasks.task import load_tasks


def test_case_and_spaces_do_not_count_but_a_point_does() -> None:
    assert plain("가 나\tDA") == plain("가나 da")
    assert plain("3.5") != plain("35")


def test_the_key_is_what_the_prompt_shows() -> None:
    tasks = load_tasks(["unsmile", "kowiki_qa"])
    one, other = ({"text": "글", "label": label, "targets": ""} for label in ("hate", "clean"))
    keys = [content_key(tasks["unsmile"], Record("i", "g", "f:1", fields)) for fields in (one, other)]
    assert keys[0] == keys[1]
    articles = ({"title": "수달", "first_paragraph": text} for text in ("물가에 산다.", "족제빗과이다."))
    keys = [content_key(tasks["kowiki_qa"], Record("i", "g", "f:1", fields)) for fields in articles]
    assert keys[0] != keys[1]  # an answer of free text is part of the record


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("xy"))))
def test_every_copy_is_accounted_for(rows: list[tuple[int, str]]) -> None:
    seen = Seen()
    left: Counter[str] = Counter()
    kept: list[int] = []
    for line, (key, answer) in enumerate(rows):
        reason = seen.reason(key, answer, f"f:{line}")
        if reason:
            left[reason] += 1
        else:
            kept.append(key)
    assert len(rows) == len(kept) + left.total()
    assert len(kept) == len({key for key, _ in rows})
    answers = {key: {a for k, a in rows if k == key} for key, _ in rows}
    assert set(seen.contradicted) == {key for key, found in answers.items() if len(found) == 2}
    if all(len(found) == 1 for found in answers.values()):
        assert left[CONTRADICTORY] == 0
    assert set(left) <= {EXACT, CONTRADICTORY}
