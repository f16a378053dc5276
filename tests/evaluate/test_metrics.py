from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.evaluate import metrics

PAIRS = [(0, 0), (0, 1), (1, 1), (1, 1), (2, 0)]


def test_by_hand() -> None:
    assert metrics.accuracy(PAIRS) == pytest.approx(3 / 5)
    assert metrics.majority([0, 0, 1, 1, 1, 2]) == pytest.approx(1 / 2)
    assert metrics.proportion_stderr(0.8, 100) == pytest.approx(0.04)
    # label 0: 2 / (2 + 1 + 1); label 1: 4 / (4 + 1); label 2: never found
    assert metrics.macro_f1(PAIRS) == pytest.approx((0.5 + 0.8 + 0) / 3)
    assert metrics.mean_stderr([1.0, 3.0]) == pytest.approx(1.0)
    assert metrics.mean_stderr([5.0]) == 0.0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_macro_f1_is_sklearns(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import f1_score

    golds, predicted = zip(*pairs)
    assert metrics.macro_f1(pairs) == pytest.approx(f1_score(golds, predicted, average="macro", zero_division=0))


def test_the_bootstrap_agrees_with_drawing_rows() -> None:
    rng = random.Random(1)
    pairs = [(i % 2, i % 2 if rng.random() < 0.7 else 1 - i % 2) for i in range(200)]
    drawn = [metrics.macro_f1(rng.choices(pairs, k=len(pairs))) for _ in range(600)]
    mean = sum(drawn) / len(drawn)
    expected = (sum((value - mean) ** 2 for value in drawn) / (len(drawn) - 1)) ** 0.5
    found = metrics.macro_f1_stderr(pairs)
    assert found == pytest.approx(expected, rel=0.15)  # both are estimates: 600 and 1,000 draws
    assert found == metrics.macro_f1_stderr(pairs)
    assert metrics.macro_f1_stderr([(1, 1)] * 5) == 0
