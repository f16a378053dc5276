"""lexical.json: what a classifier that sees letters alone answers to the held-out rows of a build.

Written by the data stage, read by whoever shows a held-out score: a model that is no better has read no sentence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from kit19_ray.io import storage

NAME = "lexical.json"


def write(data_uri: str, answers: Mapping[str, Mapping[str, int]]) -> None:
    """Writes each task's answers, the label by the id of a held-out row, below a data prefix."""
    kept = {task: dict(sorted(found.items())) for task, found in sorted(answers.items())}
    storage.write_text(storage.join(data_uri, NAME), json.dumps(kept, indent=0) + "\n")


def read(data_uri: str) -> dict[str, dict[str, int]]:
    """Per task the label by row id; {} of a prefix that has none."""
    uri = storage.join(data_uri, NAME)
    if not storage.exists(uri):
        return {}
    found: dict[str, dict[str, int]] = json.loads(storage.read_text(uri))
    return found
