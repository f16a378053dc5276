"""Runs compared: what differs, scores with the conditions they were measured under, differences with their errors.

Figures are compared only where they were measured alike; where they were not, the figure stays and is marked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.evaluate.report import PAPER, PAPER_MODELS
from kit19_ray.report.runs import Run

Json = dict[str, Any]

# Documents of the published test sets, which the paper's figures are shares of.
PAPER_DOCUMENTS = {
    "kobest_boolq": 1404,
    "kobest_copa": 1000,
    "kobest_hellaswag": 500,
    "kobest_sentineg": 397,
    "klue_sts": 519,
}
_METRICS = ("acc", "acc_norm", "macro_f1", "f1")


def compare(runs: Sequence[Run]) -> Json:
    """The whole comparison, JSON-ready: `runs`, `config`, `scores`, `held_out` and, of two runs, `differences`."""
    scores = [_row(runs, "tasks", task, metric) for task, metric in _measured(runs, "tasks")]
    held_out = [_row(runs, "held_out", task, "accuracy") for task, _ in _measured(runs, "held_out")]
    out: Json = {
        "runs": [_run(run) for run in runs],
        "config": config_differences(runs),
        "paper_models": list(PAPER_MODELS),
        "scores": scores,
        "held_out": held_out,
    }
    if len(runs) == 2 and all(run.scores for run in runs):
        rows = [("tasks", row) for row in scores] + [("held_out", row) for row in held_out]
        found = [_difference(runs, section, row) for section, row in rows if all(row["cells"])]
        out["differences"] = found
    return out


def _run(run: Run) -> Json:
    train = run.train or {}
    splits = (run.data or {}).get("splits", {})
    return {
        "name": run.name,
        "train": run.train_uri,
        "evaluate": run.evaluate_uri,
        "model": run.train_uri or (run.scores or {}).get("model"),
        "data": str(train["data"]).rsplit("/", 1)[1] if train else None,
        "examples": splits.get("train", {}).get("examples"),
        "parameters": train.get("parameters"),
        "precision": train.get("precision"),
        "steps": train.get("steps"),
        "tokens": train.get("tokens"),
        "validation_loss_first": train.get("validation_loss_first"),
        "validation_loss": train.get("validation_loss"),
        "tokens_per_second": train.get("tokens_per_second"),
        "seconds": train.get("seconds"),
    }


def config_differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Key -> its value in each run, for the keys in which the runs differ; None where a run has no such part."""
    flat = [_flat(_config(run)) for run in runs]
    keys = sorted({key for found in flat for key in found})
    values = {key: [found.get(key) for found in flat] for key in keys}
    present = {key: [found[key] for found in flat if key in found] for key in keys}
    return {key: values[key] for key in keys if any(value != present[key][0] for value in present[key])}


def _config(run: Run) -> Json:
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


def _measured(runs: Sequence[Run], section: str) -> list[tuple[str, str]]:
    """(task, metric) of everything any run was scored on, in the order of first sight."""
    found: dict[tuple[str, str], None] = {}
    for run in runs:
        for task, entry in (run.scores or {}).get(section, {}).items():
            if section == "held_out":
                found |= {(task, "accuracy"): None} if "accuracy" in entry else {}
                continue
            own = [m for m in _METRICS if m in entry]
            others = [name for name, value in entry.items() if isinstance(value, float)]
            found |= dict.fromkeys((task, metric) for metric in own or others)
    return list(found)


def _row(runs: Sequence[Run], section: str, task: str, metric: str) -> Json:
    cells = [_cell(run, section, task, metric) for run in runs]
    paper = PAPER.get((task, metric)) if section == "tasks" else None
    conditions = [cell["conditions"] for cell in cells if cell]
    differing = [key for key in conditions[0] if any(c[key] != conditions[0][key] for c in conditions)]
    for cell in cells:
        if cell:
            cell["differs_in"] = {key: cell["conditions"][key] for key in differing}
            cell["unlike_paper"] = _unlike_paper(task, cell) if paper else []
    return {"task": task, "metric": metric, "cells": cells, "paper": list(paper) if paper else None}


def _cell(run: Run, section: str, task: str, metric: str) -> Json | None:
    scores = run.scores or {}
    entry = scores.get(section, {}).get(task, {})
    if metric not in entry:
        return None
    return {
        "value": entry[metric],
        "stderr": entry.get("stderr", {}).get(metric),
        "n": entry["n"],
        "conditions": _conditions(run, section, task, entry),
    }


def _conditions(run: Run, section: str, task: str, entry: Mapping[str, Any]) -> Json:
    """What a score depends on besides the model."""
    scores, made = run.scores or {}, run.evaluate or {}
    if section == "held_out":
        rows = made.get("held_out")
        return {"rows of data": rows[:12] if rows else None, "documents": entry["n"]}
    documents = made.get("documents", {}).get(task)
    return {
        "few-shot": entry.get("num_fewshot", scores.get("num_fewshot")),
        "limit": scores.get("limit"),
        "lm-eval": scores.get("versions", {}).get("lm-eval"),
        "task version": entry.get("version"),
        "files": manifest.digest(documents)[:8] if documents else None,
    }


def _unlike_paper(task: str, cell: Mapping[str, Any]) -> list[str]:
    """What keeps a score from being compared with the paper's."""
    found = []
    if cell["conditions"]["few-shot"] != 0:
        found.append(f"{cell['conditions']['few-shot']}-shot")
    if cell["n"] != PAPER_DOCUMENTS.get(task, cell["n"]):
        found.append(f"{cell['n']:,} of {PAPER_DOCUMENTS[task]:,} documents")
    elif cell["conditions"]["limit"] is not None:
        found.append(f"limit {cell['conditions']['limit']}")
    return found


def _difference(runs: Sequence[Run], section: str, row: Mapping[str, Any]) -> Json:
    """The second run's score less the first's, with the standard error of the difference."""
    first, second = row["cells"]
    out: Json = {"section": section, "task": row["task"], "metric": row["metric"]}
    if first["differs_in"]:
        return out | {"kind": "not comparable", "differs_in": [first["differs_in"], second["differs_in"]]}
    pairs = [run.outcomes.get(section, {}).get(row["task"], {}).get(row["metric"], {}) for run in runs]
    difference = second["value"] - first["value"]
    if pairs[0] and pairs[0].keys() == pairs[1].keys():
        return out | {"kind": "paired", "difference": difference, "stderr": paired_stderr(*pairs), "n": len(pairs[0])}
    if first["stderr"] is None or second["stderr"] is None:
        return out | {"kind": "no error known", "difference": difference, "stderr": None}
    stderr = math.hypot(first["stderr"], second["stderr"])
    return out | {"kind": "unpaired", "difference": difference, "stderr": stderr}


def paired_stderr(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Standard error of the mean of the documents' own differences; 0 for one document.

    Args:
        first, second: each document's figure, by its name; the same documents.
    """
    deltas = [second[name] - first[name] for name in first]
    mean, n = sum(deltas) / len(deltas), len(deltas)
    return math.sqrt(sum((d - mean) ** 2 for d in deltas) / (n - 1) / n) if n > 1 else 0.0
