"""A comparison as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from kit19_ray.artifacts.score_files import Leak
from kit19_ray.report.record import GUESSES, Cell, Comparison, Difference, RunRow, ScoreRow

_SHOWN_PAPER = ("KIT 1.3B", "KIT 5.8B", "Polyglot-Ko 1.3B")
_MARKS = "abcdefghijklmnopqrstuvwxyz"


class _Footnotes:
    """Letters for conditions, one a distinct text."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """`[a]` for this text."""
        known = len(self._letters)
        letter = self._letters.setdefault(text, _MARKS[known % 26] * (known // 26 + 1))
        return f"[{letter}]"

    def lines(self) -> list[str]:
        """The legend."""
        return [f"- [{letter}] {text}" for text, letter in self._letters.items()]


def markdown(found: Comparison, charts: Sequence[str] = ()) -> str:
    """The page.

    Args:
        found: what `comparison.compare` gives.
        charts: file names of the charts, beside the page.
    """
    names = [run["name"] for run in found["runs"]]
    parts = ["# Runs compared", "", *_table(*_runs(found["runs"])), ""]
    if found["config"]:
        rows = [(f"`{key}`", *map(_value, values)) for key, values in found["config"].items()]
        parts += ["## What differs in the config", "", *_table(("key", *names), rows), ""]
    elif len(names) > 1:
        parts += ["The configs do not differ.", ""]
    for chart in charts:
        parts += [f"![{chart.removesuffix('.png')}]({chart})", ""]
    notes = _Footnotes()
    if found["scores"]:
        paper = [found["paper_models"].index(name) for name in _SHOWN_PAPER]
        header = ("task", "metric", *names, *(f"{name} (paper)" for name in _SHOWN_PAPER))
        rows = [
            (row["task"], row["metric"], *(_cell(cell, notes) for cell in row["cells"]), *_paper(row, paper))
            for row in found["scores"]
        ]
        parts += ["## lm-evaluation-harness, beside the paper's", "", "Percent, ± one standard error.", ""]
        parts += [*_table(header, rows), ""]
    if found["held_out"]:
        rows = [
            (
                row["task"],
                row["metric"].removeprefix("generation."),
                *(_cell(cell, notes) for cell in row["cells"]),
                *(_guess(row, name) for name in GUESSES),
            )
            for row in found["held_out"]
        ]
        parts += ["## Held-out rows of the data stage", "", _HELD_OUT, ""]
        parts += [*_table(("task", "metric", *names, *GUESSES), rows), ""]
    if found.get("judge"):
        rows = [(row["task"], row["metric"], *(_cell(cell, notes) for cell in row["cells"])) for row in found["judge"]]
        parts += ["## Open answers, judged by another model", "", _JUDGED, ""]
        parts += [*_table(("questions", "metric", *names), rows), ""]
    if notes.lines():
        parts += ["Measured under different conditions, so not to be compared:", "", *notes.lines(), ""]
    if found.get("leaks"):
        rows = [(name, *map(_leak, statuses)) for name, statuses in found["leaks"].items()]
        parts += ["## Test sets in the training data", "", _LEAKS, "", *_table(("test set", *names), rows), ""]
    compared = [(names[1], names[0], found["differences"])] if found.get("differences") else []
    compared += [(pair["tuned"], pair["base"], pair["differences"]) for pair in found.get("tuned", ())]
    for second, first, differences in compared:
        header = ("task", "metric", "difference", "standard errors", "95 % interval", "p", "how")
        parts += [f"## {second} less {first}", "", _HOW, "", *_table(header, _differences(differences)), ""]
    return "\n".join(parts)


_HOW = (
    "Points of percent, ± the standard error of the difference. Paired: over the same documents, one by one. Unpaired: "
    "from both scores' own errors, as if the documents had been others, so too wide. p: how often chance alone gives "
    "such a difference, by 1,000 draws of the documents; of twenty rows one is below 0.05 by chance."
)
_HELD_OUT = (
    "Percent, ± one standard error. majority: the most frequent label of these rows, always answered. lexical: what a "
    "linear classifier that sees runs of one to three letters, trained on the training rows, answers to these; one "
    "figure a run where their rows differ. A model that is no better has read no sentence."
)
_JUDGED = "Percent, ± one standard error. score: the mean grade, 10 being 100. win: pairs won, a tie as half a win."
_LEAKS = (
    "cleaned: rows that hold an item of the set were dropped from the run's training data, that many. absent: the "
    "set's files were not at hand when the data were built. unknown: the model's training data are not ours to see."
)


def _leak(found: Leak | None) -> str:
    if found is None:
        return ""
    return f"{found['status']} ({found['rows']:,})" if "rows" in found else str(found["status"])


def _runs(runs: Sequence[RunRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("run", "data", "parameters", "steps", "tokens", "validation loss", "tokens/s")
    rows: list[tuple[str, ...]] = []
    for run in runs:
        first, last = run["validation_loss_first"], run["validation_loss"]
        loss = f"{first:.3f} -> {last:.3f}" if first is not None and last is not None else ""
        rows.append(
            (
                run["name"] if run["train"] else f"{run['name']} ({run['model']})",
                run["data"] or "",
                _count(run["parameters"]),
                _count(run["steps"]),
                _count(run["tokens"]),
                loss,
                _count(run["tokens_per_second"]),
            )
        )
    return header, rows


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _value(value: Any) -> str:
    return "" if value is None else str(value)


def _cell(cell: Cell | None, notes: _Footnotes) -> str:
    if cell is None:
        return ""
    text = f"{100 * cell['value']:.2f}"
    if isinstance(cell["stderr"], float):
        text += f" ± {100 * cell['stderr']:.2f}"
    if cell["differs_in"]:
        text += " " + notes.mark(
            ", ".join(f"{key}: {_value(value) or 'none'}" for key, value in cell["differs_in"].items())
        )
    if cell["unlike_paper"]:
        text += " " + notes.mark(f"unlike the paper: {', '.join(cell['unlike_paper'])}")
    return text


def _guess(row: ScoreRow, name: Literal["majority", "lexical"]) -> str:
    """A guess's share, in percent: one figure, or one a scored run where they are not the same."""
    shares = [f"{100 * cell[name]:.2f}" if name in cell else "" for cell in row["cells"] if cell]
    known = set(shares) - {""}
    return " / ".join(share or "none" for share in shares) if len(known) > 1 else "".join(known)


def _paper(row: ScoreRow, places: Sequence[int]) -> list[str]:
    return [f"{row['paper'][place]:.2f}" for place in places] if row["paper"] else [""] * len(places)


def _differences(found: Sequence[Difference]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for entry in found:
        interval = p = ""
        if entry["kind"] == "not comparable":
            keys = list(entry["differs_in"][0])
            cells = ("", "")
            how = f"not comparable: {', '.join(keys)} {'differs' if len(keys) == 1 else 'differ'}"
        elif entry["stderr"] is None:
            cells, how = (f"{100 * entry['difference']:+.2f}", ""), entry["kind"]
        else:
            ratio = f"{entry['difference'] / entry['stderr']:+.1f}" if entry["stderr"] else ""
            cells = (f"{100 * entry['difference']:+.2f} ± {100 * entry['stderr']:.2f}", ratio)
            how = f"paired, {entry['n']:,} documents" if entry["kind"] == "paired" else entry["kind"]
        if entry["kind"] == "paired":
            low, high = entry["interval"]
            interval, p = f"{100 * low:+.1f} to {100 * high:+.1f}", f"{entry['p']:.3f}"
        of = {"held_out": " (held out)", "judge": " (judged)"}.get(entry["section"], "")
        name = f"{entry['task']}{of}"
        rows.append((name, entry["metric"], *cells, interval, p, how))
    return rows


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    every = (header, ["---"] * len(header), *rows)
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in every]
