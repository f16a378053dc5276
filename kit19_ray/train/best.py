"""Which checkpoint of a run is the best by a named score, and whether enough were tried.

    <run>/scores/00000120.json     the score of step 120's checkpoint, or why it has none

The answer depends on the scores in the order of their steps, never on when they came in: a run that was interrupted,
or whose scoring was slow, exports what any other run of the same config exports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kit19_ray.io import storage

FOLDER = "scores"


@dataclass(frozen=True)
class Score:
    """What a checkpoint was worth: None, and why, where it could not be scored."""

    value: float | None
    error: str = ""


@dataclass(frozen=True)
class Choice:
    """What the scores so far come to.

    Attributes:
        ranked: steps that have a score and count, the best first; of equal ones the earlier.
        enough: nothing that may still come would change that.
    """

    ranked: list[int]
    enough: bool


def choose(scores: Mapping[int, Score], steps: Sequence[int], more_is_better: bool, patience: int | None) -> Choice:
    """Goes through `steps` in order, as far as they have scores, and stops when `patience` runs out.

    Args:
        steps: all that will ever be scored, in order.
    """
    sign = 1.0 if more_is_better else -1.0
    values: dict[int, float] = {}
    since_best = 0
    for step in steps:
        if step not in scores:
            return Choice(_ranked(values), False)
        value = scores[step].value
        if value is None:
            continue  # says nothing about the model
        since_best = 0 if all(sign * value > held for held in values.values()) else since_best + 1
        values[step] = sign * value
        if patience is not None and since_best >= patience:
            break
    return Choice(_ranked(values), True)


def _ranked(values: Mapping[int, float]) -> list[int]:
    return sorted(values, key=lambda step: (-values[step], step))


def write(out: str, step: int, score: Score) -> None:
    """Keeps a checkpoint's score in the run `out`."""
    text = json.dumps({"step": step, "score": score.value, "error": score.error}, ensure_ascii=False)
    storage.write_text(_uri(out, step), text + "\n")


def read(out: str, step: int) -> Score | None:
    """The score of a step's checkpoint; None where there is none yet."""
    uri = _uri(out, step)
    if not storage.exists(uri):
        return None
    found = json.loads(storage.read_text(uri))
    return Score(found["score"], found["error"])


def _uri(out: str, step: int) -> str:
    return storage.join(out, FOLDER, f"{step:08d}.json")
