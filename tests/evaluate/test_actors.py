from __future__ import annotations

import pytest

from kit19_ray.evaluate.actors import _chunks, progress


def test_chunks_are_runs_of_about_equal_cost() -> None:
    costs = list(range(40, 0, -1))
    chunks = _chunks([[i] for i in range(40)], costs, 8)
    assert [i for chunk in chunks for i in chunk] == list(range(40))
    totals = [sum(costs[i] for i in chunk) for chunk in chunks]
    assert len(chunks) <= 8
    assert max(totals) <= sum(costs) / 8 + max(costs)


def test_parts_stay_together() -> None:
    parts = [[0, 5], [1], [2, 3, 4]]
    for chunk in _chunks(parts, [9, 1, 1], 3):
        assert sorted(map(sorted, [p for p in parts if set(p) & set(chunk)])) == sorted(
            map(sorted, [p for p in parts if set(p) <= set(chunk)])
        )
    assert _chunks([], [], 4) == []


def test_progress_says_how_much_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("choices", 1500) as advance:
        advance(700)
        advance(800)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("evaluate: 1,500 choices in ")
