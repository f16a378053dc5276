"""What came of a drill, read from what the run left in its prefix."""

from __future__ import annotations

import re
from typing import TypedDict

from kit19_ray.artifacts import metrics_log
from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.artifacts.stage_manifests import TrainOutput
from kit19_ray.drill import faults
from kit19_ray.drill.drills import Drill

WEIGHTS = "export/model.safetensors"


class DrillOutcome(TypedDict):
    """One row.

    Attributes:
        detected_seconds: until Ray Train's controller, or the run's own log, had it; None where nothing was to see.
        steps_lost: that were made again.
        next_step_seconds: until the next step was made.
        weights: `equal` to those of the run nothing happened to, to the bit; or how much the validation loss differs.
        wrong: what should have come of it and did not; "" when it is as it must be.
    """

    drill: str
    done: str
    detected_seconds: float | None
    steps_lost: int | None
    next_step_seconds: float | None
    weights: str
    wrong: str


def measure(out: str, drill: Drill, made: TrainOutput, expected: TrainOutput) -> DrillOutcome:
    """The outcome of a drill whose run ended.

    Args:
        out: its prefix.
        made: what the run gave.
        expected: what a run gave that nothing happened to.
    """
    struck = faults.read(out, faults.STRUCK)
    if struck is None:
        return failed(drill, "it was over before anything was done to it")
    later = [line for line in metrics_log.read(out) if "loss" in line and line["time"] > struck["time"]]
    events = [line for line in metrics_log.read(out, metrics_log.EVENTS) if line["time"] > struck["time"]]
    taken_up = [e for e in events if "goes on at step" in e["text"]]
    detected = faults.read(out, faults.DETECTED)
    seen = [word["time"] for word in (detected, *events[:1]) if word is not None]
    restarted = bool(taken_up) or detected is not None
    resumed = _step(taken_up[0]["text"]) if taken_up else 0
    lost = max(0, struck["step"] - resumed) if restarted else 0
    same = made["files"].get(WEIGHTS) == expected["files"].get(WEIGHTS)
    difference = abs(made["validation_loss"] / expected["validation_loss"] - 1)
    wrong = []
    if restarted != drill.restarts:
        wrong.append("the workers were started again" if restarted else "the workers were not started again")
    if lost > drill.lost_at_most:
        wrong.append(f"{lost} steps were lost, at most {drill.lost_at_most} may be")
    if drill.same_weights and not same:
        wrong.append("the weights differ")
    if made["skipped_steps"] != drill.skipped_steps:
        wrong.append(f"{made['skipped_steps']} steps were left out")
    if drill.outside == "growth":
        wrong += _grown(taken_up)
    return {
        "drill": drill.name,
        "done": drill.done,
        "detected_seconds": min(seen) - struck["time"] if seen else None,
        "steps_lost": lost,
        "next_step_seconds": min(line["time"] for line in later) - struck["time"] if later else None,
        "weights": "equal" if same else f"validation loss {difference:.0e} apart",
        "wrong": "; ".join(wrong),
    }


def failed(drill: Drill, why: str) -> DrillOutcome:
    """The outcome of a drill whose run did not end well."""
    return {
        "drill": drill.name, "done": drill.done, "detected_seconds": None, "steps_lost": None,
        "next_step_seconds": None, "weights": "none", "wrong": why,
    }  # fmt: skip


def _step(text: str) -> int:
    found = re.search(r"goes on at step (\d+)", text)
    return int(found[1]) if found else 0


def _grown(taken_up: list[MetricsLine]) -> list[str]:
    """What is missing of going on with one worker and then with two."""
    numbers = [text.split("with ")[1].split()[0] for text in (str(event["text"]) for event in taken_up)]
    return [] if numbers[:1] == ["1"] and numbers[-1:] == ["2"] else [f"went on with {', '.join(numbers)} workers"]
