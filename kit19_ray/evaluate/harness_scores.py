"""The harness's results as scores.json and outcomes.json have them: our names, intervals, figures it does not have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.score_files import TaskOutcomes, TaskScores
from kit19_ray.evaluate import metrics
from kit19_ray.evaluate.harness import HarnessMetrics, HarnessSample, Result, plain
from kit19_ray.evaluate.suites import KLUE, KOBEST

_MACRO = (*KOBEST, "klue_ynat")
"""Tasks whose definitions say `f1` and compute macro-F1."""

Pairs = list[tuple[int, int]]
_F1S: tuple[tuple[str, Literal["macro", "binary"], bool], ...] = (
    ("macro_f1", "macro", False),
    ("f1", "binary", False),
    ("macro_f1_norm", "macro", True),
)
"""Metric, its average, and whether a choice's log-likelihood is divided by its length."""


def entry(result: Result, task: Any, num_fewshot: int) -> tuple[TaskScores, TaskOutcomes]:
    """A task's part of scores.json and of outcomes.json.

    Returns:
        The metrics by name with `n`, `num_fewshot`, `version`, `prompts` (a hash of all of them), `stderr` and
        `interval` (95 %) by metric; and per metric each document's own figure, of an F1 its [gold, predicted].
    """
    name = task.task_name
    first = result.samples[0]["filter"] if result.samples else "none"
    mine = [sample for sample in result.samples if sample["filter"] == first]
    scores: TaskScores = {
        "n": len(mine),
        "num_fewshot": num_fewshot,
        "version": result.version,
        "prompts": manifest.digest([sample["prompt_hash"] for sample in mine])[:16],
        "stderr": {},
        "interval": {},
    }
    for key, value in result.metrics.items():
        metric, _, filtered = key.partition(",")
        if not filtered or not isinstance(value, (int, float)) or math.isnan(value):
            continue
        base = metric.removesuffix("_stderr")
        called = "macro_f1" if base == "f1" and name in _MACRO else base
        called = called if filtered == first else f"{called},{filtered}"
        (scores["stderr"] if metric.endswith("_stderr") else scores)[called] = value
    outcomes = _outcomes(mine, scores)
    for metric, average, normalised in _F1S:
        wanted = (metric in scores and name in (*KOBEST, *KLUE)) or (normalised and name in KOBEST)
        pairs = _pairs(mine, task, normalised) if wanted else []
        if pairs:
            spread = metrics.f1_spread(pairs, average)
            if normalised:
                scores[metric] = metrics.macro_f1(pairs)
            scores["stderr"][metric], scores["interval"][metric] = spread.stderr, list(spread.interval)
            outcomes[metric] = {str(s["doc_id"]): list(pair) for s, pair in zip(mine, pairs, strict=True)}
    for metric, values in outcomes.items():
        if metric not in scores["interval"]:
            scores["interval"][metric] = list(metrics.mean_interval(list(values.values())))
    return scores, outcomes


def _outcomes(samples: Sequence[HarnessSample], scores: TaskScores) -> TaskOutcomes:
    """Metrics that are means of the documents' own figures."""
    out: TaskOutcomes = {}
    for metric, mean in scores.items():
        if metric in ("n", "num_fewshot", "version") or not isinstance(mean, (int, float)):
            continue
        values = [plain(sample.get(metric)) for sample in samples]
        if not values or not all(isinstance(value, (int, float)) for value in values):
            continue
        # A metric whose aggregation is something else than the mean has no figure of its own a document.
        if math.isclose(sum(values) / len(values), mean, rel_tol=1e-9, abs_tol=1e-12):
            out[metric] = {str(s["doc_id"]): float(v) for s, v in zip(samples, values, strict=True)}
    return out


def _pairs(samples: Sequence[HarnessSample], task: Any, normalised: bool) -> Pairs:
    """(gold, predicted) of each document; by log-likelihood per letter of the choice when `normalised`."""
    pairs = []
    for sample in samples:
        if not normalised:
            gold, predicted = plain(sample["f1"])
        else:
            gold = plain(sample["f1"])[0]
            lengths = [len(choice) for choice in task.doc_to_choice(sample["doc"])]
            values = [value / length for (value, _), length in zip(sample["filtered_resps"], lengths, strict=True)]
            predicted = values.index(max(values))
        pairs.append((int(gold), int(predicted)))
    return pairs


def group_entry(group: Any, results: Mapping[str, HarnessMetrics]) -> TaskScores | None:
    """A group's line by the harness's own aggregation; None for a group that defines none.

    Args:
        results: the leaves' metrics as the harness has them, by the task's name.
    """
    if not group.has_aggregation:
        return None
    found = group.aggregate(results)
    leaves = [task.task_name for task in group.get_all_tasks()]
    scores: TaskScores = {"n": found.get("sample_len", 0), "tasks": leaves, "stderr": {}}
    for key, value in found.items():
        metric, _, filtered = key.partition(",")
        if not filtered or not isinstance(value, (int, float)) or math.isnan(value):
            continue
        base = metric.removesuffix("_stderr")
        called = "macro_f1" if base == "f1" and set(leaves) <= set(_MACRO) else base
        called = called if filtered == "none" or called not in scores else f"{called},{filtered}"
        (scores["stderr"] if metric.endswith("_stderr") else scores)[called] = value
    return scores


def numbers(found: HarnessMetrics) -> HarnessMetrics:
    """The harness's metrics of a task that a group is made of, JSON-ready."""
    return {key: plain(value) for key, value in found.items() if isinstance(plain(value), (int, float, str))}
