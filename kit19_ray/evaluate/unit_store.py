"""Finished parts of an evaluation under way: one file for each task and number of solved examples.

    <prefix>/unfinished/units/<unit>.jsonl      the unit's scores in the first line, its samples in the others
    <prefix>/unfinished/responses/<unit>/       what the model said so far of a unit that is not finished

The folder goes when the evaluation is done and its samples are in samples.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TypedDict

from kit19_ray.artifacts import sample_file
from kit19_ray.artifacts.sample_file import ScoredSample
from kit19_ray.artifacts.score_files import TaskOutcomes, TaskScores
from kit19_ray.evaluate.harness import HarnessMetrics
from kit19_ray.io import storage

UNFINISHED = "unfinished"


class UnitScores(TypedDict, total=False):
    """A unit's first line."""

    scores: TaskScores
    """Its part of scores.json."""
    outcomes: TaskOutcomes
    """Its part of outcomes.json."""
    metrics: HarnessMetrics
    """The harness's own metrics, of which groups are made."""


class UnitStore:
    """The units of an evaluate prefix.

    Args:
        out: the prefix.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._base = storage.join(out, UNFINISHED)

    def read(self, unit: str) -> UnitScores | None:
        """A finished unit's scores; None for one that is not."""
        uri = self._unit(unit)
        if not storage.exists(uri):
            return None
        found: UnitScores = json.loads(storage.read_text(uri).partition("\n")[0])
        return found

    def write(self, unit: str, scores: UnitScores, samples: Iterable[ScoredSample]) -> None:
        """Keeps a finished unit; its responses are in its samples, and go."""
        lines = [json.dumps(scores, ensure_ascii=False) + "\n", *map(sample_file.line, samples)]
        storage.write_text(self._unit(unit), "".join(lines))
        storage.delete(self.responses(unit))

    def forget(self, unit: str) -> None:
        """Removes a unit's responses."""
        storage.delete(self.responses(unit))

    def responses(self, unit: str) -> str:
        """The folder of a unit's responses."""
        return storage.join(self._base, "responses", unit)

    def samples(self, unit: str) -> Iterator[ScoredSample]:
        """A finished unit's samples."""
        yield from sample_file.parse(storage.read_text(self._unit(unit)).splitlines()[1:])

    def join(self, units: Iterable[str]) -> None:
        """Writes samples.jsonl of the units, in this order."""
        with storage.open_output(storage.join(self._out, sample_file.SAMPLES)) as file:
            for unit in units:
                file.write(storage.read_text(self._unit(unit)).partition("\n")[2].encode())

    def clear(self) -> None:
        """Removes what only an unfinished evaluation needs."""
        storage.delete(self._base)

    def _unit(self, unit: str) -> str:
        return storage.join(self._base, "units", f"{unit}.jsonl")
