"""Runs compared: what differs, scores with the conditions they were measured under, differences with their errors.

Figures are compared only where they were measured alike; where they were not, the figure stays and is marked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.score_files import Leak, TaskScores
from kit19_ray.evaluate.metrics import binary_f1, macro_f1, paired_bootstrap
from kit19_ray.evaluate.report import PAPER, PAPER_MODELS
from kit19_ray.report.record import GUESSES, Cell, Comparison, Conditions, Difference, RunRow, ScoreRow
from kit19_ray.report.runs import ComparedRun
from kit19_ray.utils.json_types import Json

# Documents of the published test sets, which the paper's figures are shares of.
PAPER_DOCUMENTS = {
    "kobest_boolq": 1404,
    "kobest_copa": 1000,
    "kobest_hellaswag": 500,
    "kobest_sentineg": 397,
    "klue_sts": 519,
}
_METRICS = ("acc", "acc_norm", "macro_f1", "macro_f1_norm", "f1")
_FREE = tuple(f"generation.{name}" for name in ("exact_match", "set_f1", "chrf", "rouge_l"))
_HELD_OUT = ("accuracy", "accuracy_norm", "macro_f1", "pearson", "spearman", *_FREE)
_GUESSED = ("accuracy", "accuracy_norm")  # shares of right answers, as the guesses' are
_JUDGED = ("score", "win")
_FULL = {"generation.chrf": 100.0, "score": 10.0}
"""What the best possible value of a metric is where it is not 1 in scores.json; here all are shares of it."""


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """The whole comparison, JSON-ready: `runs`, `config`, `scores`, `held_out` and, of two runs, `differences`."""
    scores = [_row(runs, "tasks", task, metric) for task, metric in _measured(runs, "tasks")]
    scores += [_row(runs, "groups", task, metric) for task, metric in _measured(runs, "groups")]
    held_out = [_row(runs, "held_out", task, metric) for task, metric in _measured(runs, "held_out")]
    judge = [_row(runs, "judge", task, metric) for task, metric in _measured(runs, "judge")]
    out: Comparison = {
        "runs": [_run(run) for run in runs],
        "config": config_differences(runs),
        "paper_models": list(PAPER_MODELS),
        "scores": scores,
        "held_out": held_out,
        "judge": judge,
        "leaks": _leaks(runs),
    }
    rows = [*scores, *held_out, *judge]
    if len(runs) == 2 and all(run.scores for run in runs):
        out["differences"] = _differences(runs, (0, 1), rows)
    elif len(runs) > 2:
        pairs = [
            (base, tuned) for base in range(len(runs)) for tuned in range(len(runs)) if _is_tuned(runs, base, tuned)
        ]
        out["tuned"] = [
            {"base": runs[a].name, "tuned": runs[b].name, "differences": _differences(runs, (a, b), rows)}
            for a, b in pairs
        ]
    return out


def _is_tuned(runs: Sequence[ComparedRun], base: int, tuned: int) -> bool:
    """Whether a run's model was trained from the model that another run scored as it is."""
    train, scored = runs[tuned].train, runs[base].scores
    if train is None or scored is None or runs[tuned].scores is None:
        return False
    trained_from = (train.get("config") or {}).get("model", {}).get("name")
    return trained_from is not None and trained_from == scored.get("model")


def _leaks(runs: Sequence[ComparedRun]) -> dict[str, list[Leak | None]]:
    """Test set -> its status in each run's training data, None where a run did not score it."""
    found = [run.scores.get("leaks", {}) if run.scores else {} for run in runs]
    names = list(dict.fromkeys(name for leaks in found for name in leaks))
    return {name: [leaks.get(name) for leaks in found] for name in names}


def _run(run: ComparedRun) -> RunRow:
    train: Mapping[str, Any] = run.train or {}  # of an earlier version some keys may be absent
    split = run.data.get("splits", {}).get("train") if run.data else None
    return {
        "name": run.name,
        "train": run.train_uri,
        "evaluate": run.evaluate_uri,
        "model": run.train_uri or (run.scores.get("model") if run.scores else None),
        "data": str(train["data"]).rsplit("/", 1)[1] if train else None,
        "examples": split["examples"] if split else None,
        "parameters": train.get("parameters"),
        "precision": train.get("precision"),
        "steps": train.get("steps"),
        "tokens": train.get("tokens"),
        "validation_loss_first": train.get("validation_loss_first"),
        "validation_loss": train.get("validation_loss"),
        "tokens_per_second": train.get("tokens_per_second"),
        "seconds": train.get("seconds"),
    }


def config_differences(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """Key -> its value in each run, for the keys in which the runs differ; None where a run has no such part."""
    flat = [_flat(_config(run)) for run in runs]
    keys = sorted({key for found in flat for key in found})
    values = {key: [found.get(key) for found in flat] for key in keys}
    present = {key: [found[key] for found in flat if key in found] for key in keys}
    return {key: values[key] for key in keys if any(value != present[key][0] for value in present[key])}


def _config(run: ComparedRun) -> Json:
    out: Json = {}
    if run.train:
        out |= {"train": run.train["config"], "seed": run.train.get("seed")}
    if run.data and "config" in run.data:
        out["data"] = run.data["config"]
    if run.evaluate:
        out["evaluate"] = run.evaluate.get("evaluate", {})
    return out


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Json:
    out: Json = {}
    for key, value in tree.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def _measured(runs: Sequence[ComparedRun], section: str) -> list[tuple[str, str]]:
    """(task, metric) of everything any run was scored on, in the order of first sight."""
    found: dict[tuple[str, str], None] = {}
    for run in runs:
        for task, entry in _section(run, section).items():
            known = {"held_out": _HELD_OUT, "judge": _JUDGED}.get(section)
            if known is not None:
                found |= dict.fromkeys((task, metric) for metric in known if _value(entry, metric) is not None)
                continue
            own = [m for m in _METRICS if m in entry]
            others = [name for name, value in entry.items() if isinstance(value, float)]
            found |= dict.fromkeys((task, metric) for metric in own or others)
    return list(found)


def _section(run: ComparedRun, section: str) -> Mapping[str, TaskScores]:
    """tasks, groups or held_out of a run's scores; empty where it has none."""
    scores: Mapping[str, Any] = run.scores or {}
    found: Mapping[str, TaskScores] = scores.get(section, {})
    return found


def _row(runs: Sequence[ComparedRun], section: str, task: str, metric: str) -> ScoreRow:
    cells = [_cell(run, section, task, metric) for run in runs]
    paper = PAPER.get((task, metric)) if section == "tasks" else None
    conditions = [cell["conditions"] for cell in cells if cell]
    differing = [key for key in conditions[0] if any(c[key] != conditions[0][key] for c in conditions)]
    for cell in cells:
        if cell:
            cell["differs_in"] = {key: cell["conditions"][key] for key in differing}
            cell["unlike_paper"] = _unlike_paper(task, cell) if paper else []
    return {
        "section": section,
        "task": task,
        "metric": metric,
        "cells": cells,
        "paper": list(paper) if paper else None,
    }


def _value(entry: Mapping[str, Any], metric: str, part: str | None = None) -> Any:
    """A metric of a task's entry, or its error (`part`: stderr, interval); those of free answers stand deeper."""
    section, _, name = metric.rpartition(".")
    found = entry.get(section, {}) if section else entry
    value = found.get(part, {}).get(name) if part else found.get(name)
    full = _FULL.get(metric, 1.0)
    if full != 1.0 and value is not None:
        return [bound / full for bound in value] if isinstance(value, list) else value / full
    return value


def _cell(run: ComparedRun, section: str, task: str, metric: str) -> Cell | None:
    entry = _section(run, section).get(task, {})
    value = _value(entry, metric)
    if value is None:
        return None
    n = entry["generation"]["n"] if metric in _FREE else entry["n"]
    cell: Cell = {
        "value": value,
        "stderr": _value(entry, metric, "stderr"),
        "interval": _value(entry, metric, "interval"),
        "n": n,
        "conditions": _conditions(run, section, task, entry, n),
    }
    if section == "held_out" and metric in _GUESSED:
        for name in GUESSES:
            if name in entry:
                cell[name] = entry[name]
    return cell


def _conditions(run: ComparedRun, section: str, task: str, entry: Mapping[str, Any], n_documents: int) -> Conditions:
    """What a score depends on besides the model."""
    scores: Mapping[str, Any] = run.scores or {}
    made: Mapping[str, Any] = run.evaluate or {}
    if section == "held_out":
        rows = made.get("held_out")
        return {"rows of data": rows[:12] if rows else None, "documents": n_documents}
    if section == "judge":
        judge = made.get("evaluate", {}).get("judge", {})
        files = {PurePosixPath(path).name.partition(".")[0]: sha for path, sha in made.get("questions", {}).items()}
        return {
            "questions": files.get(task, "")[:12] or None,
            "judge": judge.get("model") or judge.get("endpoint"),
            "against": judge.get("against"),
            "documents": n_documents,
        }
    documents = made.get("documents", {}).get(task)
    return {
        "few-shot": entry.get("num_fewshot", scores.get("num_fewshot")),
        "limit": scores.get("limit"),
        "lm-eval": scores.get("versions", {}).get("lm-eval"),
        "task version": entry.get("version"),
        "prompts": entry.get("prompts"),
        "files": manifest.digest(documents)[:8] if documents else None,
    }


def _unlike_paper(task: str, cell: Cell) -> list[str]:
    """What keeps a score from being compared with the paper's."""
    found = []
    if cell["conditions"]["few-shot"] != 0:
        found.append(f"{cell['conditions']['few-shot']}-shot")
    if cell["n"] != PAPER_DOCUMENTS.get(task, cell["n"]):
        found.append(f"{cell['n']:,} of {PAPER_DOCUMENTS[task]:,} documents")
    elif cell["conditions"]["limit"] is not None:
        found.append(f"limit {cell['conditions']['limit']}")
    return found


def _differences(runs: Sequence[ComparedRun], places: tuple[int, int], rows: Sequence[ScoreRow]) -> list[Difference]:
    return [_difference(runs, places, row) for row in rows if all(row["cells"][place] for place in places)]


def _difference(runs: Sequence[ComparedRun], places: tuple[int, int], row: ScoreRow) -> Difference:
    """One run's score less another's, with the standard error of the difference and its p-value."""
    section, metric = row["section"], row["metric"]
    first, second = (row["cells"][place] for place in places)
    assert first is not None and second is not None  # see `_differences`
    out: Difference = {"section": section, "task": row["task"], "metric": metric, "kind": "unpaired"}
    differing = [key for key, value in first["conditions"].items() if second["conditions"][key] != value]
    if differing:
        conditions = [{key: cell["conditions"][key] for key in differing} for cell in (first, second)]
        out["kind"], out["differs_in"] = "not comparable", conditions
        return out
    pairs = [runs[place].outcomes.get(section, {}).get(row["task"], {}).get(metric, {}) for place in places]
    out["difference"] = second["value"] - first["value"]
    if pairs[0] and pairs[0].keys() == pairs[1].keys():
        out["kind"], out["n"] = "paired", len(pairs[0])
        out["stderr"], out["interval"], out["p"] = _paired(metric, *pairs)
        return out
    if first["stderr"] is None or second["stderr"] is None:
        out["kind"], out["stderr"] = "no error known", None
        return out
    out["stderr"] = math.hypot(first["stderr"], second["stderr"])
    return out


def _paired(metric: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[float, list[float], float]:
    """Standard error, interval and p of a difference over the same documents."""
    names = list(first)
    own, other = [first[name] for name in names], [second[name] for name in names]
    if isinstance(own[0], list):  # (gold, predicted) of each document: an F1 is no mean of theirs
        spread, p = paired_bootstrap(own, other, binary_f1 if metric == "f1" else macro_f1)
        return spread.stderr, list(spread.interval), p
    full = _FULL.get(metric, 1.0)
    own, other = [value / full for value in own], [value / full for value in other]
    spread, p = paired_bootstrap(own, other)
    stderr = paired_stderr(dict(zip(names, own)), dict(zip(names, other)))
    return stderr, list(spread.interval), p


def paired_stderr(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Standard error of the mean of the documents' own differences; 0 for one document.

    Args:
        first, second: each document's figure, by its name; the same documents.
    """
    deltas = [second[name] - first[name] for name in first]
    mean, n = sum(deltas) / len(deltas), len(deltas)
    return math.sqrt(sum((d - mean) ** 2 for d in deltas) / (n - 1) / n) if n > 1 else 0.0
