"""report.json: what a comparison finds, by the names it has there."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from kit19_ray.artifacts.score_files import Leak

Conditions = dict[str, Any]
"""What a score depends on besides the model, under the names that the page prints; other ones for rows of data."""


GUESSES: tuple[Literal["majority", "lexical"], ...] = ("majority", "lexical")
"""Shares of held-out rows that are right without a sentence read: the commonest label always, and a linear classifier
that sees letters alone (`artifacts.lexical`)."""


class RunRow(TypedDict):
    """One column: a run's prefixes and the figures of its training, None where it has none."""

    name: str
    train: str | None
    evaluate: str | None
    model: str | None
    data: str | None
    examples: int | None
    parameters: int | None
    precision: str | None
    steps: int | None
    tokens: int | None
    validation_loss_first: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    seconds: float | None


class Cell(TypedDict):
    """A score of one run; `differs_in` has the conditions that another run of the row was not measured under. With a
    held-out accuracy stand the `GUESSES` on the same rows, as far as the evaluation has them."""

    value: float
    stderr: float | None
    interval: list[float] | None
    n: int
    conditions: Conditions
    majority: NotRequired[float]
    lexical: NotRequired[float]
    differs_in: NotRequired[Conditions]
    unlike_paper: NotRequired[list[str]]


class ScoreRow(TypedDict):
    """A task's metric over all runs; `section` is the part of scores.json, `paper` the paper's models in percent."""

    section: str
    task: str
    metric: str
    cells: list[Cell | None]
    paper: list[float] | None


class Difference(TypedDict):
    """One run's score less another's; which of the further keys there are follows from `kind`."""

    section: str
    task: str
    metric: str
    kind: str
    differs_in: NotRequired[list[Conditions]]
    difference: NotRequired[float]
    n: NotRequired[int]
    stderr: NotRequired[float | None]
    interval: NotRequired[list[float]]
    p: NotRequired[float]


class TunedPair(TypedDict):
    """A model and what was trained from it, both among the runs."""

    base: str
    tuned: str
    differences: list[Difference]


class Comparison(TypedDict):
    """The whole of it."""

    runs: list[RunRow]
    config: dict[str, list[Any]]
    paper_models: list[str]
    scores: list[ScoreRow]
    held_out: list[ScoreRow]
    judge: list[ScoreRow]
    leaks: dict[str, list[Leak | None]]
    differences: NotRequired[list[Difference]]
    tuned: NotRequired[list[TunedPair]]
