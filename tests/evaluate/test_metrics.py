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


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1))
def test_binary_f1_is_sklearns(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import f1_score

    golds, predicted = zip(*pairs)
    assert metrics.binary_f1(pairs) == pytest.approx(f1_score(golds, predicted, zero_division=0))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-3, 3)), min_size=3, max_size=40))
def test_correlations_are_scipys(pairs: list[tuple[int, float]]) -> None:
    from scipy.stats import pearsonr, spearmanr

    first, second = [float(a) for a, _ in pairs], [round(b, 2) for _, b in pairs]
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert metrics.pearson(first, second) == metrics.spearman(first, second) == 0
        return
    assert metrics.pearson(first, second) == pytest.approx(pearsonr(first, second).statistic, abs=1e-9)
    assert metrics.spearman(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-9)


def test_intervals_hold_the_score_and_shrink_with_documents() -> None:
    few, many = metrics.mean_interval([1.0, 0.0] * 20), metrics.mean_interval([1.0, 0.0] * 2000)
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
    # 1.96 standard errors either side, of a share of 0.5 among 40
    assert few[1] - few[0] == pytest.approx(2 * 1.96 * (0.25 / 40) ** 0.5, rel=0.15)
    spread = metrics.f1_spread([(1, 1)] * 30 + [(1, 0)] * 30, "binary")
    assert spread.interval[0] < metrics.binary_f1([(1, 1)] * 30 + [(1, 0)] * 30) < spread.interval[1]
    assert metrics.f1_spread([(0, 0)] * 5, "binary").interval == (0.0, 0.0)


def test_a_paired_difference_is_surer_than_an_unpaired_one() -> None:
    first = [float(i % 2) for i in range(200)]
    second = [1.0 if i < 40 else value for i, value in enumerate(first)]  # 20 more are right, none is lost
    spread, p = metrics.paired_bootstrap(first, second)
    assert spread.interval[0] > 0 and p < 0.01
    assert spread.stderr == pytest.approx((0.1 * 0.9 / 200) ** 0.5, rel=0.15)
    assert metrics.paired_bootstrap(first, first)[1] == 1.0
    pairs = [(int(a), int(a)) for a in first]
    worse = [(gold, 1 - predicted) if i < 60 else (gold, predicted) for i, (gold, predicted) in enumerate(pairs)]
    spread, p = metrics.paired_bootstrap(pairs, worse, metrics.macro_f1)
    assert spread.interval[1] < 0 and p < 0.01
