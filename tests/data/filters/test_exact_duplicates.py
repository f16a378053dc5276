"""Copies of a text with one answer, and with two."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.filters.exact_duplicates import CONTRADICTORY, EXACT, DuplicateTracker, content_key, plain
from kit19_ray.tasks.task import load_tasks


def test_case_and_spaces_do_not_count_but_a_point_does() -> None:
    assert plain("가 나\tDA") == plain("가나 da")
    assert plain("3.5") != plain("35")


def test_the_key_is_what_the_prompt_shows() -> None:
    tasks = load_tasks(["unsmile", "kowiki_qa"])
    one, other = ({"text": "글", "label": label, "targets": ""} for label in ("hate", "clean"))
    keys = [content_key(tasks["unsmile"], fields) for fields in (one, other)]
    assert keys[0] == keys[1]
    texts = ("물가에 산다.", "족제빗과이다.")
    articles = ({"title": "수달", "first_paragraph": text, "subject": "term"} for text in texts)
    keys = [content_key(tasks["kowiki_qa"], fields) for fields in articles]
    assert keys[0] != keys[1]  # an answer of free text is part of the record


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("xy"))))
def test_every_copy_is_accounted_for(rows: list[tuple[int, str]]) -> None:
    reasons = DuplicateTracker().reasons(rows)
    kept = [key for (key, _), reason in zip(rows, reasons, strict=True) if reason is None]
    answers = {key: {a for k, a in rows if k == key} for key, _ in rows}
    assert sorted(kept) == sorted(key for key, found in answers.items() if len(found) == 1)
    assert set(reasons) <= {None, EXACT, CONTRADICTORY}
    for (key, _), reason in zip(rows, reasons, strict=True):
        if reason == CONTRADICTORY:
            assert len(answers[key]) == 2


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from("xy"))), st.integers(1, 7))
def test_buckets_of_keys_decide_as_the_whole_does(rows: list[tuple[int, str]], num: int) -> None:
    whole = DuplicateTracker().reasons(rows)
    apart: list[str | None] = [None] * len(rows)
    for bucket in range(num):
        mine = [i for i, (key, _) in enumerate(rows) if key % num == bucket]
        for i, reason in zip(mine, DuplicateTracker().reasons([rows[i] for i in mine]), strict=True):
            apart[i] = reason
    assert apart == whole
