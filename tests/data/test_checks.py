from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from kit19_ray.config.schema import GatesConfig
from kit19_ray.data import records
from kit19_ray.data.checks import Checker
from kit19_ray.data.filters import decontamination
from kit19_ray.data.filters.decontamination import EvaluationIndex
from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from kit19_ray.tasks.task import load_tasks

TASKS = load_tasks()
COMPARING = {"kornli", "korsts", "parakqc", "pawsx", "question_pair", "stylekqc"}
SENTENCE = "서울역 앞에서 KTX 표를 두 장 샀다."


def checked(
    name: str, rows: list[SourceRow | RejectedRow], index: EvaluationIndex | None = None, **gates: Any
) -> list[dict[str, Any]]:
    """The rows of a task as the checks leave them."""
    checker = Checker(TASKS[name], 19, 0.1, GatesConfig(**gates))
    (table,) = records.tables(TASKS[name], 0, "file.tsv", rows)
    return checker.check(table, index).to_pylist()


def row(name: str, *texts: str, line: int = 1) -> SourceRow:
    """A record of a task: its texts in the order of its fields, the last for all further ones, and the first label."""
    spec = TASKS[name].spec
    asked = [field for field in spec.fields if field != spec.answer]
    fields = dict(zip(asked, [*texts, *[texts[-1]] * len(asked)], strict=False))
    return SourceRow(line, fields | ({spec.answer: TASKS[name].labels[0]} if spec.answer else {}))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_one_text_twice_leaves_the_tasks_that_compare_two(name: str) -> None:
    (found,) = checked(name, [row(name, SENTENCE)])
    assert found["dropped"] == ("identical_pair" if name in COMPARING else None)


@pytest.mark.parametrize(
    ("other", "dropped"),
    [
        (SENTENCE, True),
        ("서울역 앞에서 ktx 표를 두 장 샀다.", True),
        ("서울역앞에서 KTX표를 두장 샀다.", True),
        (" 서울역  앞에서\tKTX 표를 두 장 샀다. ", True),
        ("서울역 앞에서 ＫＴＸ 표를 두 장 샀다.", True),  # letters of full width
        ("서울역 앞에서 KTX 표를 두 장 샀다", False),  # no full stop
        ("서울역 앞에서 KTX 표를 세 장 샀다.", False),
        ("KTX 표를 서울역 앞에서 두 장 샀다.", False),
    ],
)
def test_case_spaces_and_width_make_no_other_sentence(other: str, dropped: bool) -> None:
    for first, second in ((SENTENCE, other), (other, SENTENCE)):
        (found,) = checked("pawsx", [row("pawsx", first, second)])
        assert found["dropped"] == ("identical_pair" if dropped else None)


def test_what_leaves_is_counted_and_what_stays_is_untouched() -> None:
    rows: list[SourceRow | RejectedRow] = [
        row("korsts", SENTENCE, SENTENCE, "4.0", line=2),
        row("korsts", SENTENCE, "표는 매진이었다.", "4.0", line=3),
        RejectedRow(4, "too_few_columns", [SENTENCE, SENTENCE]),
        row("korsts", "표는 매진이었다.", "표는  매진이었다.", "5.0", line=5),
    ]
    found = checked("korsts", rows)
    assert Counter(r["dropped"] for r in found) == {None: 1, "identical_pair": 2, "too_few_columns": 1}
    assert [r["place"] for r in found] == [f"file.tsv:{line}" for line in (2, 3, 4, 5)], "every row is still there"
    assert json.loads(found[0]["fields"])["sentence2"] == SENTENCE, "for the file of rejects"
    off = checked("korsts", rows, identical_pairs=False)
    assert [r["dropped"] for r in off] == [None, None, "too_few_columns", None]
    assert found[1] == off[1]


def test_a_row_has_one_reason_and_a_leak_is_the_first() -> None:
    index = decontamination.build([("a_test_set", [[SENTENCE]])], 0.8)
    rows: list[SourceRow | RejectedRow] = [
        row("question_pair", SENTENCE),
        row("question_pair", "비가 온다", "비가 온다", line=2),
    ]
    found = checked("question_pair", rows, index)
    assert [r["dropped"] for r in found] == ["contaminated_a_test_set", "identical_pair"]
