"""`report.md` and the terminal's tables: our scores beside the paper's, and the held-out rows task by task."""

from __future__ import annotations

from collections.abc import Mapping

from kit19_ray.artifacts.score_files import Leak, Scores, TaskScores
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
    "klue_sts": 50.0,
    "klue_ynat": 100 / 7,
}
"""Accuracy of a blind guess, in percent: 100 / choices."""
_WIDTH = 100  # columns of the widest table on a terminal
_METRICS = ("acc", "acc_norm", "macro_f1", "macro_f1_norm", "f1")

_PAPER = (
    "Chance: accuracy of a blind guess. The columns after it are the KIT-19 authors' own table (README of "
    "github.com/snunlp/KIT-19), which states neither shots nor training splits. Their 97.6 on HellaSwag goes with a "
    "quota of 5,000 training rows from a source that has 3,029, its 500 test rows included."
)
_CHOICES = (
    "Majority: the most frequent label of these rows, always answered. Lexical: what a linear classifier that sees "
    "runs of one to three letters, trained on the same training rows, answers to these. By letter: the log-likelihood "
    "of each choice is divided by its length. closed, open: accuracy with templates that list the choices, and with "
    "those that do not; unseen: with templates that no training row had."
)
_FREE = (
    "Decoded greedily and compared with the bare answer, whatever the phrasing around it. Exact: numbers by the last "
    "one written, sets by their names, texts letter by letter. chrF from 0 to 100, ROUGE-L over letters; an answer "
    "that was cut at the limit is compared with as much of the reference."
)
_LEAKS = (
    "cleaned: rows that hold an item of the test set were dropped from the training data, that many. absent: the set's "
    "files were not at hand when the data were built. unknown: the model's training data are not ours to see."
)

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def harness_table(scores: Mapping[str, TaskScores]) -> Table:
    """Header and rows: one row a task and metric, in percent, cells empty where there is no figure.

    The paper's tasks that were not scored are listed too.
    """
    header = ("task", "metric", "n", "ours", "95 % interval", "chance", *PAPER_MODELS)
    rows = []
    for named in dict.fromkeys([*scores, *(task for task, _ in PAPER)]):
        found = scores.get(named, {})
        task, _, shots = named.partition("@")
        known = [m for m in _METRICS if m in found or ((task, m) in PAPER and not shots)]
        for metric in known or [name for name, value in found.items() if isinstance(value, float)]:
            # The paper's table is 0-shot.
            paper = PAPER.get((task, metric), ()) if not found.get("num_fewshot") else ()
            cells = [f"{value:.2f}" for value in paper] or [""] * len(PAPER_MODELS)
            ours = _percent(found[metric], found["stderr"].get(metric)) if metric in found else "not scored"
            chance = f"{CHANCE[task]:.0f}" if metric.startswith("acc") and task in CHANCE else ""
            called = f"{task}, {found['num_fewshot']}-shot" if found.get("num_fewshot") else task
            interval = _interval(found, metric)
            rows.append((called, metric, f"{found['n']:,}" if found else "", ours, interval, chance, *cells))
    return header, rows


def group_table(scores: Mapping[str, TaskScores]) -> Table:
    """Header and rows: one row a group and metric, as the harness makes one figure of its tasks."""
    rows: list[tuple[str, ...]] = []
    for named, found in scores.items():
        called = named.partition("@")[0] + (f", {found['num_fewshot']}-shot" if found.get("num_fewshot") else "")
        for metric, value in found.items():
            if isinstance(value, float):
                shown = _percent(value, found["stderr"].get(metric))
                rows.append((called, metric, f"{len(found['tasks'])}", f"{found['n']:,}", shown))
    return ("group", "metric", "tasks", "n", "ours"), rows


def judge_table(scores: Mapping[str, TaskScores]) -> Table:
    """Header and rows: one row a file of open questions, then one a category."""
    rows: list[tuple[str, ...]] = []
    for name, found in scores.items():
        metric = next((metric for metric in ("score", "win") if metric in found), None)
        if metric is None:
            rows.append((name, "all", "0", "", f"{found['unjudged']:,}"))
            continue
        shown = _percent if metric == "win" else _plain
        all_ = shown(found[metric], found["stderr"][metric])
        rows.append((name, "all", f"{found['n']:,}", all_, f"{found['unjudged']:,}"))
        for category, part in found["by_category"].items():
            rows.append((name, category, f"{part['n']:,}", shown(part[metric], None), ""))
    return ("questions", "category", "n", "grade of 10, or won in percent", "not judged"), rows


def _plain(value: float, stderr: float | None) -> str:
    return f"{value:.2f}" + (f" ± {stderr:.2f}" if stderr is not None else "")


def leak_table(leaks: Mapping[str, Leak]) -> Table:
    """Header and rows: per test set whether the model's training data were cleaned of it."""
    rows: list[tuple[str, ...]] = [
        (name, found["status"], f"{found['rows']:,}" if "rows" in found else "") for name, found in leaks.items()
    ]
    return ("test set", "training data", "rows dropped"), rows


def _interval(found: TaskScores, metric: str) -> str:
    bounds = found.get("interval", {}).get(metric)
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}" if bounds else ""


def held_out_table(scores: Mapping[str, TaskScores]) -> Table:
    """Header and rows: one row a task; the standard errors are the distance from a constant answer in them."""
    header = (
        "task", "n", "accuracy", "majority", "lexical", "standard errors above majority", "by letter", "macro F1",
        "closed", "open", "unseen", "Pearson", "Spearman",
    )  # fmt: skip
    rows = []
    for task, found in scores.items():
        if "accuracy" in found:
            parts = [found["by_kind"].get(kind) for kind in ("closed", "open")] + [found["by_seen"].get("unseen")]
            norm = found.get("accuracy_norm")
            rows.append(
                (
                    task,
                    f"{found['n']:,}",
                    _percent(found["accuracy"], found["stderr"]["accuracy"]),
                    f"{100 * found['majority']:.2f}",
                    _share(found, "lexical"),
                    f"{found['above_majority']:+.1f}",
                    f"{100 * norm:.2f}" if norm is not None else "",
                    _percent(found["macro_f1"], found["stderr"]["macro_f1"]),
                    *(f"{100 * part['accuracy']:.2f} of {part['n']:,}" if part else "" for part in parts),
                    *(f"{found[name]:.3f}" if name in found else "" for name in ("pearson", "spearman")),
                )
            )
    return header, rows


def template_table(scores: Mapping[str, TaskScores]) -> Table:
    """Header and rows: one row a task and template, choices by accuracy, free answers by their figures."""
    rows: list[tuple[str, ...]] = []
    for task, found in scores.items():
        for name, part in found.get("by_template", {}).items():
            guesses = (_share(part, "majority"), _share(part, "lexical"))
            accuracy = _percent(part["accuracy"], part["stderr"]["accuracy"])
            rows.append((task, name, f"{part['n']:,}", accuracy, *guesses, "", ""))
        for name, part in found.get("generation", {}).get("by_template", {}).items():
            exact = _percent(part["exact_match"], part["stderr"]["exact_match"]) if "exact_match" in part else ""
            rows.append(
                (task, name, f"{part['n']:,}", "", "", "", exact, f"{part['chrf']:.1f}" if "chrf" in part else "")
            )
    return ("task", "template", "n", "accuracy", "majority", "lexical", "exact match", "chrF"), rows


def generation_table(scores: Mapping[str, TaskScores]) -> Table:
    """Header and rows: one row a task with free answers."""
    header = ("task", "n", "cut", "exact match", "set F1", "chrF", "ROUGE-L")
    rows: list[tuple[str, ...]] = []
    for task, found in scores.items():
        free = found.get("generation")
        if free:
            errors = free["stderr"]
            shown = {
                name: _percent(free[name], errors[name])
                for name in ("exact_match", "set_f1", "rouge_l")
                if name in free
            }
            chrf = f"{free['chrf']:.1f} ± {errors['chrf']:.1f}" if "chrf" in free else ""
            exact, sets, rouge = (shown.get(name, "") for name in ("exact_match", "set_f1", "rouge_l"))
            rows.append((task, f"{free['n']:,}", f"{100 * free['cut']:.0f}", exact, sets, chrf, rouge))
    return header, rows


def _share(found: TaskScores, name: str) -> str:
    """A share in percent, empty where there is none."""
    return f"{100 * found[name]:.2f}" if name in found else ""


def _percent(value: float, stderr: float | None) -> str:
    return f"{100 * value:.2f}" + (f" ± {100 * stderr:.2f}" if isinstance(stderr, float) else "")


def markdown(scores: Scores) -> str:
    """The report: what was scored with what, and the tables."""
    limit = scores["limit"]
    shots = " and ".join(f"{count}-shot" for count in scores["num_fewshot"])
    parts = [
        "# Scores",
        "",
        f"Model `{scores['model']}`, {shots}"
        + (f", the first {limit} documents of each task only: not comparable" if limit else "")
        + ". Percent, ± one standard error; intervals of 95 % by bootstrap. What the model said to each question is in "
        "`samples.jsonl`.",
        "",
    ]
    if scores["ablation"]:
        parts += [
            f"> **Trained on test data on purpose** (ablation `{scores['ablation']}`): no score of this model.",
            "",
        ]
    if scores["tasks"]:
        parts += _section("lm-evaluation-harness, beside the paper's", _PAPER, harness_table(scores["tasks"]))
    parts += _section("Groups", "As the harness makes one figure of a group's tasks.", group_table(scores["groups"]))
    parts += _section("Test sets and the training data", _LEAKS, leak_table(scores["leaks"]))
    held_out, source = scores["held_out"], f"From `{scores['data']}`. "
    parts += _section("Held-out rows of the data stage: choices", source + _CHOICES, held_out_table(held_out))
    parts += _section("Held-out rows of the data stage: free answers", source + _FREE, generation_table(held_out))
    parts += _section("Open answers, judged by another model", "", judge_table(scores["judge"]))
    parts += _section("Held-out rows by template", "", template_table(held_out))
    parts += ["Versions: " + ", ".join(f"{name} {version}" for name, version in scores["versions"].items()), ""]
    return "\n".join(parts)


def _section(title: str, text: str, table: Table) -> list[str]:
    """A heading, a text and a table; nothing for a table without rows."""
    if not table[1]:
        return []
    return [f"## {title}", "", *([text, ""] if text else []), *_markdown(table), ""]


def _markdown(table: Table) -> list[str]:
    header, rows = table
    return [f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows)]


def show(scores: Scores) -> None:
    """The tables on stderr; of the paper's models the two it published and the base of the smaller one."""
    from rich.table import Table as RichTable

    console = stderr(least_width=_WIDTH)
    harness = harness_table(scores["tasks"]) if scores["tasks"] else ((), [])
    published = [harness[0].index(name) for name in ("KIT 1.3B", "KIT 5.8B", "Polyglot-Ko 1.3B") if harness[0]]
    for title, (header, rows), keep in (
        ("lm-evaluation-harness, percent", harness, [0, 1, 2, 3, 5, *published]),
        ("Groups, percent", group_table(scores["groups"]), [0, 1, 2, 3, 4]),
        ("Held-out rows, choices, percent", held_out_table(scores["held_out"]), [0, 1, 2, 3, 4, 5, 7]),
        ("Held-out rows, free answers", generation_table(scores["held_out"]), [0, 1, 3, 4, 5]),
        ("Open answers, judged by another model", judge_table(scores["judge"]), [0, 1, 2, 3, 4]),
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
