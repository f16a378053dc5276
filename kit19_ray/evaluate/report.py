"""`report.md` and the terminal's tables: our scores beside the paper's, and the held-out rows task by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The one results table that is public: README of github.com/snunlp/KIT-19, added 2024-03-18. Percent.
PAPER_MODELS = ("Polyglot-Ko 1.3B", "Polyglot-Ko 5.8B", "KoAlpaca 5.8B", "KULLM 5.8B v2", "KIT 5.8B", "KIT 1.3B")
PAPER: dict[tuple[str, str], tuple[float, ...]] = {
    ("kobest_copa", "acc"): (72.00, 77.60, 69.80, 76.60, 91.60, 83.80),
    ("kobest_copa", "macro_f1"): (71.96, 77.55, 69.77, 76.53, 91.59, 83.78),
    ("kobest_boolq", "acc"): (49.86, 53.63, 56.34, 50.28, 66.24, 50.71),
    ("kobest_boolq", "macro_f1"): (35.52, 43.56, 50.64, 33.71, 66.14, 34.78),
    ("kobest_hellaswag", "acc"): (40.60, 48.80, 38.20, 44.40, 97.60, 81.60),
    ("kobest_hellaswag", "acc_norm"): (53.00, 59.80, 46.20, 55.20, 98.20, 89.80),
    ("kobest_hellaswag", "macro_f1"): (40.13, 48.53, 38.15, 44.25, 97.61, 81.49),
    ("kobest_sentineg", "acc"): (69.27, 50.38, 38.79, 50.38, 71.54, 80.86),
    ("kobest_sentineg", "macro_f1"): (68.19, 33.95, 38.48, 33.50, 68.98, 80.86),
}
_METRICS = ("acc", "acc_norm", "macro_f1")

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def harness_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Header and rows: one row a task and metric, in percent, the paper's columns empty where it has no figure."""
    header = ("task", "metric", "n", "ours", *PAPER_MODELS)
    rows = []
    for task, found in scores.items():
        for metric in [m for m in _METRICS if m in found] or [k for k, v in found.items() if isinstance(v, float)]:
            paper = PAPER.get((task, metric), ())
            cells = [f"{value:.2f}" for value in paper] or [""] * len(PAPER_MODELS)
            rows.append((task, metric, f"{found['n']:,}", _percent(found[metric], found["stderr"].get(metric)), *cells))
    return header, rows


def held_out_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Header and rows: one row a task; the last column is the distance from a constant answer in standard errors."""
    header = ("task", "n", "accuracy", "majority", "macro F1", "standard errors above majority", "exact match", "chrF")
    rows = []
    for task, found in scores.items():
        choice = (
            (
                f"{found['n']:,}",
                _percent(found["accuracy"], found["stderr"]["accuracy"]),
                f"{100 * found['majority']:.2f}",
                _percent(found["macro_f1"], found["stderr"]["macro_f1"]),
                f"{found['above_majority']:+.1f}",
            )
            if "accuracy" in found
            else (f"{found['generation']['n']:,}", "", "", "", "")
        )
        free = found.get("generation")
        texts = (f"{100 * free['exact_match']:.1f}", f"{free['chrf']:.1f}") if free else ("", "")
        rows.append((task, *choice, *texts))
    return header, rows


def _percent(value: float, stderr: float | None) -> str:
    return f"{100 * value:.2f}" + (f" ± {100 * stderr:.2f}" if isinstance(stderr, float) else "")


def markdown(scores: Mapping[str, Any]) -> str:
    """The report: what was scored with what, and both tables."""
    limit = scores["limit"]
    parts = [
        "# Scores",
        "",
        f"Model `{scores['model']}`, {scores['num_fewshot']}-shot"
        + (f", the first {limit} documents of each task only: not comparable" if limit else "")
        + ". Percent, ± one standard error.",
        "",
    ]
    if scores["tasks"]:
        parts += ["## lm-evaluation-harness, beside the paper's", "", *_markdown(harness_table(scores["tasks"])), ""]
    if scores["held_out"]:
        parts += ["## Held-out rows of the data stage", "", *_markdown(held_out_table(scores["held_out"])), ""]
    parts += ["Versions: " + ", ".join(f"{name} {version}" for name, version in scores["versions"].items()), ""]
    return "\n".join(parts)


def _markdown(table: Table) -> list[str]:
    header, rows = table
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)]


def show(scores: Mapping[str, Any]) -> None:
    """Both tables on stderr; of the paper's models the two it published."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(stderr=True)
    harness, held_out = harness_table(scores["tasks"]), held_out_table(scores["held_out"])
    published = [harness[0].index(name) for name in ("KIT 1.3B", "KIT 5.8B")]
    for title, (header, rows), keep in (
        ("lm-evaluation-harness, percent", harness, [0, 1, 2, 3, *published]),
        ("Held-out rows, percent", held_out, [0, 1, 2, 3, 5, 6, 7]),
    ):
        columns = [header[i].replace("standard errors above majority", "SE above") for i in keep]
        cells = [tuple(row[i] for i in keep) for row in rows]
        if cells:
            table = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
            for i, column in enumerate(columns):
                table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
            for row in cells:
                table.add_row(*row)
            console.print(table)
