"""Called by klue_ynat.yaml; the harness loads this file by its path."""

from __future__ import annotations

from collections.abc import Sequence


def macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """Unweighted mean over the labels of each one's F1, of (gold, predicted) pairs."""
    from sklearn.metrics import f1_score

    golds, predicted = zip(*pairs)
    return float(f1_score(golds, predicted, average="macro"))
