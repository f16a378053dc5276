"""The outcomes as a table, for a terminal and for the docs."""

from __future__ import annotations

from kit19_ray.drill.measure import DrillOutcome
from kit19_ray.utils import console

_COLUMNS = ("drill", "detected in", "steps lost", "next step in", "weights", "outcome")


def rows(outcomes: list[DrillOutcome]) -> list[list[str]]:
    """A row an outcome, by _COLUMNS."""
    return [
        [
            found["drill"], _seconds(found["detected_seconds"]),
            "" if found["steps_lost"] is None else str(found["steps_lost"]), _seconds(found["next_step_seconds"]),
            found["weights"], found["wrong"] or "as it must be",
        ]
        for found in outcomes
    ]  # fmt: skip


def text(outcomes: list[DrillOutcome]) -> str:
    """For a terminal."""
    return console.table_text(_COLUMNS, rows(outcomes), right=_COLUMNS[1:4])


def markdown(outcomes: list[DrillOutcome]) -> str:
    """For a page, with what is done."""
    heads = ("drill", "what is done", *_COLUMNS[1:])
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | ---: | ---: | ---: | --- | --- |"]
    for found, row in zip(outcomes, rows(outcomes), strict=True):
        lines.append(f"| {' | '.join([row[0], found['done'], *row[1:]])} |")
    return "\n".join(lines) + "\n"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{max(0.0, value):.1f} s"
