"""run.json of a train prefix: what was begun there. Until manifest.json is written it is all that says so."""

from __future__ import annotations

import json
from typing import Any, Literal, TypedDict

from kit19_ray.io import storage

NAME = "run.json"


class RunStart(TypedDict):
    """What a training is known by before it has done anything; as manifest.json has it later."""

    stage: Literal["train"]
    version: int
    data: str
    prompt: str
    seed: int
    config: dict[str, Any]
    steps: int


def write(out: str, start: RunStart) -> None:
    """Says what was begun in `out`."""
    storage.write_text(storage.join(out, NAME), json.dumps(start, ensure_ascii=False, sort_keys=True))


def read(out: str) -> RunStart | None:
    """What was begun in `out`; None where nothing was, or by an older version."""
    uri = storage.join(out, NAME)
    if not storage.exists(uri):
        return None
    try:
        found: RunStart = json.loads(storage.read_text(uri))
    except ValueError:
        return None
    return found
