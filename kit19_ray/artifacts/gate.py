"""Whether a model's scores let it be served: the same rules for `kit19 run` and for the operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kit19_ray.config.schema import GateRule
from kit19_ray.errors import nearest

Scores = dict[str, dict[str, float]]

_LEAVES = "tasks"  # of a group: how many tasks are in it


def table(scores: Mapping[str, Any]) -> Scores:
    """The numbers of a scores.json: task, metric, value; the harness's tasks and groups, the held-out tasks.

    Figures of a held-out task's free answers are called `generation.chrf` and so on. A group has its `tasks` counted
    among its figures, which is how `headline` knows it.
    """
    out: Scores = {}
    for part in ("held_out", "judge", "groups", "tasks"):
        for task, metrics in scores.get(part, {}).items():
            out[task] = _numbers(metrics)
            if part == "groups":
                out[task][_LEAVES] = float(len(metrics.get("tasks", ())))
            out[task] |= {f"generation.{name}": n for name, n in _numbers(metrics.get("generation", {})).items()}
    return out


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def failures(scores: Scores, rules: Sequence[GateRule]) -> list[str]:
    """A sentence for each rule that the scores do not meet; a score that is missing or not a number does not."""
    said = []
    for rule in rules:
        metrics = scores.get(rule.task)
        if metrics is None:
            said.append(f"{rule.task} was not scored{nearest(rule.task, scores)}")
        elif rule.metric not in metrics:
            known = ", ".join(sorted(metrics)) or "none"
            said.append(f"{rule.task} has no {rule.metric}{nearest(rule.metric, metrics)}; it has {known}")
        elif not metrics[rule.metric] >= rule.min:
            said.append(f"{rule.task} {rule.metric} is {metrics[rule.metric]:.4f}, the gate asks for {rule.min:g}")
    return said


def headline(scores: Scores, rules: Sequence[GateRule]) -> float | None:
    """One number for a list: the mean of the gate's scores, without a gate of every task's acc; None without any.

    A group says what its tasks say, and a task at a further number of solved examples (`task@5`) what it says at the
    first: neither counts beside them.
    """
    if rules:
        found = [scores[r.task][r.metric] for r in rules if r.metric in scores.get(r.task, {})]
    else:
        single = {task: metrics for task, metrics in scores.items() if _LEAVES not in metrics}
        once = [m for task, m in single.items() if "@" not in task or task.partition("@")[0] not in single]
        found = [metrics["acc"] for metrics in once if "acc" in metrics]
    return sum(found) / len(found) if found else None
