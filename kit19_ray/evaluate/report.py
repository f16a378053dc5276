"""`report.md` and the terminal's tables: our scores beside the paper's, and the held-out rows task by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kit19_ray.utils.console import stderr

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
    ("klue_sts", "acc"): (42.39, 45.28, 51.83, 42.39, 65.51, 42.20),
    ("klue_sts", "f1"): (59.54, 60.34, 33.86, 59.54, 69.71, 56.52),
    ("klue_ynat", "macro_f1"): (33.24, 33.62, 20.91, 32.20, 28.15, 38.34),
}
CHANCE = {
    "kobest_boolq": 50.0,
    "kobest_copa": 50.0,
    "kobest_hellaswag": 25.0,
    "kobest_sentineg": 50.0,
    "kobest_wic": 50.0,
}
"""Accuracy of a blind guess, in percent: 100 / choices."""
_WIDTH = 100  # columns of the widest table on a terminal
_METRICS = ("acc", "acc_norm", "macro_f1", "f1")

_PAPER = (
    "Chance: accuracy of a blind guess. The columns after it are the KIT-19 authors' own table (README of "
    "github.com/snunlp/KIT-19), which states neither shots nor training splits. Their 97.6 on HellaSwag goes with a "
    "quota of 5,000 training rows from a source that has 3,029, its 500 test rows included."
)
_CHOICES = (
    "Majority: the most frequent label of these rows, always answered. closed, open: accuracy with templates that list "
    "the choices, and with those that do not."
)
_FREE = "Decoded greedily. Exact match in percent, chrF from 0 to 100."

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def harness_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Header and rows: one row a task and metric, in percent, cells empty where there is no figure.

    The paper's tasks that were not scored are listed too.
    """
    header = ("task", "metric", "n", "ours", "chance", *PAPER_MODELS)
    rows = []
    for task in dict.fromkeys([*scores, *(task for task, _ in PAPER)]):
        found = scores.get(task, {})
        known = [m for m in _METRICS if m in found or (task, m) in PAPER]
        for metric in known or [name for name, value in found.items() if isinstance(value, float)]:
            paper = PAPER.get((task, metric), ())
            cells = [f"{value:.2f}" for value in paper] or [""] * len(PAPER_MODELS)
            ours = _percent(found[metric], found["stderr"].get(metric)) if metric in found else "not scored"
            chance = f"{CHANCE[task]:.0f}" if metric.startswith("acc") and task in CHANCE else ""
            rows.append((task, metric, f"{found['n']:,}" if found else "", ours, chance, *cells))
    return header, rows


def held_out_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Header and rows: one row a task; the last column is the distance from a constant answer in standard errors."""
    header = ("task", "n", "accuracy", "majority", "standard errors above majority", "macro F1", "closed", "open")
    rows = []
    for task, found in scores.items():
        if "accuracy" in found:
            kinds = [found["by_kind"].get(kind) for kind in ("closed", "open")]
            rows.append(
                (
                    task,
                    f"{found['n']:,}",
                    _percent(found["accuracy"], found["stderr"]["accuracy"]),
                    f"{100 * found['majority']:.2f}",
                    f"{found['above_majority']:+.1f}",
                    _percent(found["macro_f1"], found["stderr"]["macro_f1"]),
                    *(f"{100 * kind['accuracy']:.2f} of {kind['n']:,}" if kind else "" for kind in kinds),
                )
            )
    return header, rows


def generation_table(scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """Header and rows: one row a task with free answers."""
    header = ("task", "n", "at most tokens", "exact match", "chrF")
    rows: list[tuple[str, ...]] = []
    for task, found in scores.items():
        free = found.get("generation")
        if free:
            chrf = f"{free['chrf']:.1f} ± {free['stderr']['chrf']:.1f}"
            exact = _percent(free["exact_match"], free["stderr"]["exact_match"])
            rows.append((task, f"{free['n']:,}", str(free["max_tokens"]), exact, chrf))
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
    if scores["ablation"]:
        parts += [
            f"> **Trained on test data on purpose** (ablation `{scores['ablation']}`): no score of this model.",
            "",
        ]
    if scores["tasks"]:
        parts += [
            "## lm-evaluation-harness, beside the paper's",
            "",
            _PAPER,
            "",
            *_markdown(harness_table(scores["tasks"])),
            "",
        ]
    choices, free = held_out_table(scores["held_out"]), generation_table(scores["held_out"])
    if choices[1]:
        parts += [
            "## Held-out rows of the data stage: choices",
            "",
            f"From `{scores['data']}`. {_CHOICES}",
            "",
            *_markdown(choices),
            "",
        ]
    if free[1]:
        parts += [
            "## Held-out rows of the data stage: free answers",
            "",
            f"From `{scores['data']}`. {_FREE}",
            "",
            *_markdown(free),
            "",
        ]
    parts += ["Versions: " + ", ".join(f"{name} {version}" for name, version in scores["versions"].items()), ""]
    return "\n".join(parts)


def _markdown(table: Table) -> list[str]:
    header, rows = table
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)]


def show(scores: Mapping[str, Any]) -> None:
    """The tables on stderr; of the paper's models the two it published and the base of the smaller one."""
    from rich.table import Table as RichTable

    console = stderr(least_width=_WIDTH)
    harness = harness_table(scores["tasks"]) if scores["tasks"] else ((), [])
    published = [harness[0].index(name) for name in ("KIT 1.3B", "KIT 5.8B", "Polyglot-Ko 1.3B") if harness[0]]
    for title, (header, rows), keep in (
        ("lm-evaluation-harness, percent", harness, [0, 1, 2, 3, 4, *published]),
        ("Held-out rows, choices, percent", held_out_table(scores["held_out"]), [0, 1, 2, 3, 4, 5]),
        ("Held-out rows, free answers", generation_table(scores["held_out"]), [0, 1, 3, 4]),
    ):
        if not rows:
            continue
        table = RichTable(title=title, title_justify="left", box=None, pad_edge=False)
        for i in keep:
            name = header[i].replace("standard errors above majority", "SE above")
            table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(row[i] for i in keep))
        console.print(table)
