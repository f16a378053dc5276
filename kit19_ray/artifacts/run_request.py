"""request.json in the prefix of a training under way: what somebody asks of it. Its rank 0 looks for it."""

from __future__ import annotations

import json
import time
from typing import Literal, TypedDict

from kit19_ray.artifacts import manifest, metrics_log
from kit19_ray.errors import TrainError
from kit19_ray.io import storage

NAME = "request.json"
Ask = Literal["save", "stop"]


class Request(TypedDict):
    """What is asked, and when, in Unix time."""

    ask: Ask
    time: float


def write(out: str, ask: Ask) -> Request:
    """Asks the run in `out` to save, or to save and stop."""
    request: Request = {"ask": ask, "time": time.time()}
    storage.write_text(storage.join(out, NAME), json.dumps(request))
    return request


def ask(out: str, wanted: Ask) -> Request:
    """The same for a user.

    Raises:
        TrainError: there is no training under way in `out`.
    """
    uri = storage.normalise(out)
    if manifest.read(uri) is not None:
        raise TrainError(f"{out} is finished: there is nothing to save")
    if metrics_log.read_status(uri) is None:
        raise TrainError(f"{out}: no training has begun there", hint="give the prefix that `kit19 train` names")
    return write(uri, wanted)


def pending(out: str) -> Request | None:
    """The request that nobody has answered yet."""
    path = storage.join(out, NAME)
    if not storage.exists(path):
        return None
    found: Request = json.loads(storage.read_text(path))
    return found


def clear(out: str) -> None:
    """Takes a request away: it is answered, or was meant for an earlier start."""
    storage.delete(storage.join(out, NAME))
