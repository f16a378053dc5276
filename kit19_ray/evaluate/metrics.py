"""Scores and how sure of them we are. Pure numbers in, pure numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

_RESAMPLES = 1000
_SEED = 19


def accuracy(pairs: Sequence[tuple[int, int]]) -> float:
    """Share of (gold, predicted) pairs that agree; at least one pair."""
    return sum(gold == predicted for gold, predicted in pairs) / len(pairs)


def proportion_stderr(share: float, n: int) -> float:
    """Standard error of a share of `n`: sqrt(p (1 - p) / n)."""
    return math.sqrt(share * (1 - share) / n)


def majority(golds: Sequence[int]) -> float:
    """Share of the most frequent label: what a constant answer reaches at best."""
    return max(golds.count(label) for label in set(golds)) / len(golds)


def macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """Unweighted mean over the labels that occur, as gold or as prediction, of each label's F1, as sklearn has it."""
    return float(_macro_f1(_confusion(pairs)[0][None])[0])


@dataclass(frozen=True)
class Spread:
    """How far a score may lie from the one that all documents of the kind would give."""

    stderr: float
    interval: tuple[float, float]
    """Lower and upper bound of 95 %."""


def binary_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """F1 of label 1; 0 where it is neither gold nor predicted."""
    right = sum(gold == predicted == 1 for gold, predicted in pairs)
    either = sum((gold == 1) + (predicted == 1) for gold, predicted in pairs)
    return 2 * right / either if either else 0.0


def f1_spread(pairs: Sequence[tuple[int, int]], average: Literal["macro", "binary"] = "macro") -> Spread:
    """Of an F1, over 1,000 bootstrap resamples of the pairs from a fixed seed."""
    table, labels = _confusion(pairs)
    drawn = _resampled(table.ravel()).reshape(_RESAMPLES, *table.shape)
    if average == "macro":
        return _spread(_macro_f1(drawn))
    place = labels.get(1)
    return _spread(_f1(drawn)[:, place] if place is not None else np.zeros(_RESAMPLES))


def macro_f1_stderr(pairs: Sequence[tuple[int, int]]) -> float:
    """Standard deviation of macro-F1 over the resamples of `f1_spread`."""
    return f1_spread(pairs).stderr


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % of the means of 1,000 bootstrap resamples of the values from a fixed seed; at least one value."""
    # Equal values are drawn together: figures of documents are mostly 0 and 1.
    distinct, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    return _spread(_resampled(counts) @ distinct / len(values)).interval


def paired_bootstrap(
    first: Sequence[float] | Sequence[tuple[int, int]],
    second: Sequence[float] | Sequence[tuple[int, int]],
    statistic: Callable[[Sequence[tuple[int, int]]], float] | None = None,
) -> tuple[Spread, float]:
    """How sure the difference of two runs over the same documents is: the documents are drawn, both runs at once.

    Args:
        first, second: each document's own figure, or its (gold, predicted) for an F1.
        statistic: of (gold, predicted) pairs; None takes means of figures.

    Returns:
        The spread of second - first, and the two-sided p-value of no difference: twice the share of resamples on the
        other side of 0, at least 1 / (resamples + 1).
    """
    rng = np.random.default_rng(_SEED)
    n = len(first)
    if statistic is None:
        deltas = np.asarray(second, np.float64) - np.asarray(first, np.float64)
        distinct, counts = np.unique(deltas, return_counts=True)
        drawn = _resampled(counts) @ distinct / n
    else:
        places = [rng.integers(n, size=n) for _ in range(_RESAMPLES)]
        drawn = np.array([
            statistic([second[i] for i in place]) - statistic([first[i] for i in place])
            for place in places
        ])  # fmt: skip
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return _spread(drawn), float(min(1.0, 2 * (tail + 1) / (_RESAMPLES + 1)))


def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    # By the values themselves: the deviation of equal floats may come out as a rounding error instead of 0.
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one side is constant."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: Sequence[float]) -> list[float]:
    _, inverse, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean = ends - (counts - 1) / 2
    return [float(rank) for rank in mean[inverse]]


def _resampled(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64[resamples, cells]: as many documents as there are, drawn from these counts."""
    total = int(counts.sum())
    return np.random.default_rng(_SEED).multinomial(total, counts / total, size=_RESAMPLES)


def _spread(drawn: npt.NDArray[np.float64]) -> Spread:
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Spread(float(drawn.std(ddof=1)), (float(low), float(high)))


def mean_stderr(values: Sequence[float]) -> float:
    """Standard error of a mean; 0 for a single value."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _confusion(pairs: Sequence[tuple[int, int]]) -> tuple[npt.NDArray[np.int64], dict[int, int]]:
    """int64[labels, labels], gold by predicted, and each label's place."""
    labels = {label: i for i, label in enumerate(sorted({label for pair in pairs for label in pair}))}
    table = np.zeros((len(labels), len(labels)), np.int64)
    for gold, predicted in pairs:
        table[labels[gold], labels[predicted]] += 1
    return table, labels


def _f1(tables: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64[tables, labels] of int64[tables, labels, labels]; 0 for a label that does not occur."""
    right = np.diagonal(tables, axis1=1, axis2=2)
    either = tables.sum(axis=1) + tables.sum(axis=2)  # 2 TP + FP + FN
    f1: npt.NDArray[np.float64] = np.divide(2 * right, either, out=np.zeros(right.shape), where=either > 0)
    return f1


def _macro_f1(tables: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64[tables] of int64[tables, labels, labels], over the labels that occur."""
    present = tables.sum(axis=1) + tables.sum(axis=2) > 0
    scores: npt.NDArray[np.float64] = _f1(tables).sum(axis=1) / present.sum(axis=1)
    return scores
