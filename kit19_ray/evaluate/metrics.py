"""Scores and how sure of them we are. Pure numbers in, pure numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    return float(_macro_f1(_confusion(pairs)[None])[0])


def macro_f1_stderr(pairs: Sequence[tuple[int, int]]) -> float:
    """Standard deviation of macro-F1 over 1,000 bootstrap resamples of the pairs, from a fixed seed."""
    table = _confusion(pairs)
    rng = np.random.default_rng(_SEED)
    drawn = rng.multinomial(len(pairs), table.ravel() / len(pairs), size=_RESAMPLES)
    return float(_macro_f1(drawn.reshape(_RESAMPLES, *table.shape)).std(ddof=1))


def mean_stderr(values: Sequence[float]) -> float:
    """Standard error of a mean; 0 for a single value."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def _confusion(pairs: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """int64[labels, labels]: gold by predicted."""
    labels = {label: i for i, label in enumerate(sorted({label for pair in pairs for label in pair}))}
    table = np.zeros((len(labels), len(labels)), np.int64)
    for gold, predicted in pairs:
        table[labels[gold], labels[predicted]] += 1
    return table


def _macro_f1(tables: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64[tables] of int64[tables, labels, labels]."""
    right = np.diagonal(tables, axis1=1, axis2=2)
    either = tables.sum(axis=1) + tables.sum(axis=2)  # 2 TP + FP + FN
    present = either > 0
    f1 = np.divide(2 * right, either, out=np.zeros(right.shape), where=present)
    scores: npt.NDArray[np.float64] = f1.sum(axis=1) / present.sum(axis=1)
    return scores
