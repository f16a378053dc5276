"""scores.json and outcomes.json: what an evaluation found, written by the evaluate stage and read by all others."""

from __future__ import annotations

import json
from typing import Any, NotRequired, TypedDict

from kit19_ray.io import storage

SCORES, OUTCOMES = "scores.json", "outcomes.json"

TaskScores = dict[str, Any]
"""A task's metrics, each under the name that the task itself decides, so no type can list them. Beside them stand `n`,
`stderr` and `interval` by metric, and what `evaluate.harness_scores` and `evaluate.held_out_scores` say they return."""
TaskOutcomes = dict[str, dict[str, Any]]
"""Metric -> document -> its own figure, of an F1 its [gold, predicted]."""
Outcomes = dict[str, dict[str, TaskOutcomes]]
"""outcomes.json: part of scores.json -> task -> its outcomes."""


class Leak(TypedDict):
    """Whether a model's training data were cleaned of a test set, see `evaluate.stage.leaks`."""

    status: str
    rows: NotRequired[int]


class Scores(TypedDict):
    """scores.json; `num_fewshot` and `limit` are what the harness's tasks were asked with."""

    model: str
    data: str | None
    ablation: str | None
    num_fewshot: list[int]
    limit: int | None
    tasks: dict[str, TaskScores]
    groups: dict[str, TaskScores]
    held_out: dict[str, TaskScores]
    judge: dict[str, TaskScores]
    leaks: dict[str, Leak]
    versions: dict[str, str]


def write(out: str, scores: Scores, outcomes: Outcomes) -> None:
    """Writes both files of an evaluate prefix."""
    storage.write_text(storage.join(out, OUTCOMES), json.dumps(outcomes) + "\n")
    storage.write_text(storage.join(out, SCORES), json.dumps(scores, ensure_ascii=False, indent=1) + "\n")


def read(out: str) -> Scores:
    """The scores of an evaluate prefix.

    Raises:
        StorageError: there are none.
        ValueError: the file is not whole.
    """
    found: Scores = json.loads(storage.read_text(storage.join(out, SCORES)))
    return found


def read_outcomes(out: str) -> Outcomes:
    """Per part, task and metric each document's own figure, by the document's name; {} where none were kept."""
    uri = storage.join(out, OUTCOMES)
    if not storage.exists(uri):
        return {}
    found: Outcomes = json.loads(storage.read_text(uri))
    return found
