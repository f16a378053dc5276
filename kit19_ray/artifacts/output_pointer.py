"""Where a stage's output is, told to whoever started the stage as a job: one small JSON object at KIT19_POINTER.

The prefix of a stage is named by a hash of file contents, so only the stage itself knows it; stdout of a job may be
lost. Nothing is written where KIT19_POINTER is not set.
"""

from __future__ import annotations

import json
import os

from kit19_ray.io import storage

VARIABLE = "KIT19_POINTER"


def write(stage: str, uri: str, finished: bool) -> None:
    """Says that `stage` writes to `uri`, and whether all of it is there."""
    target = os.environ.get(VARIABLE)
    if target:
        storage.write_text(target, json.dumps({"stage": stage, "uri": uri, "finished": finished}) + "\n")


def read(target: str) -> tuple[str, bool] | None:
    """The URI left at `target` and whether the output is finished; None when nothing was left yet.

    Raises:
        StorageError: the storage cannot be read.
    """
    if not storage.exists(target):
        return None
    left = json.loads(storage.read_text(target))
    return str(left["uri"]), bool(left["finished"])
