"""scores.json and outcomes.json: what an evaluation found, written by the evaluate stage and read by all others."""

from __future__ import annotations

import json
from typing import Any

from kit19_ray.io import storage

SCORES, OUTCOMES = "scores.json", "outcomes.json"


def write(out: str, scores: dict[str, Any], outcomes: dict[str, Any]) -> None:
    """Writes both files of an evaluate prefix."""
    storage.write_text(storage.join(out, OUTCOMES), json.dumps(outcomes) + "\n")
    storage.write_text(storage.join(out, SCORES), json.dumps(scores, ensure_ascii=False, indent=1) + "\n")


def read(out: str) -> dict[str, Any]:
    """The scores of an evaluate prefix.

    Raises:
        StorageError: there are none.
        ValueError: the file is not whole.
    """
    found: dict[str, Any] = json.loads(storage.read_text(storage.join(out, SCORES)))
    return found


def read_outcomes(out: str) -> dict[str, Any]:
    """Per part, task and metric each document's own figure, by the document's name; {} where none were kept."""
    uri = storage.join(out, OUTCOMES)
    if not storage.exists(uri):
        return {}
    found: dict[str, Any] = json.loads(storage.read_text(uri))
    return found
