"""What the storage says of a run: where a stage writes to, its newest metrics, the scores. Blocking; reads little."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from kit19_ray.artifacts import gate, output_pointer
from kit19_ray.errors import UserError
from kit19_ray.io import storage
from kit19_ray.operate.api.spec import KitRunSpec, Stage
from kit19_ray.operate.controller.observation import Report
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import Run

_TAIL_BYTES = 4096
# metrics.jsonl's names and the status' own
_METRICS = ("progress", "step", "steps", "eta_seconds", "tokens_per_second", "loss", "validation_loss")


def variables(spec: KitRunSpec, secret: Mapping[str, str] | None) -> dict[str, str]:
    """The AWS variables of a run's pods, by which the operator reads what they wrote.

    Without a key in them the operator's own credentials serve; without an endpoint it is AWS, or where the operator's
    own AWS_ENDPOINT_URL is.
    """
    own = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION") if name in os.environ}
    asked = {"AWS_ENDPOINT_URL": spec.storage.endpoint, "AWS_REGION": spec.storage.region}
    return own | {name: value for name, value in asked.items() if value} | dict(secret or {})


def read(run: Run, spec: KitRunSpec, stage: Stage) -> Report:
    """What is known of a stage; `error` says why when the storage cannot be read."""
    try:
        left = output_pointer.read(naming.pointer_uri(run, spec, stage))
        if left is None:
            return Report(error=f"the {stage} stage left no pointer at {naming.pointer_uri(run, spec, stage)}")
        uri, finished = left
        if stage == "train":
            return Report(uri, _metrics(uri))
        if stage == "evaluate" and finished:
            scores = json.loads(storage.read_text(storage.join(uri, "scores.json")))
            return Report(uri, scores=gate.table(scores))
    except UserError as error:
        return Report(error=str(error).replace("\n", "; "), unreadable=True)
    except (ValueError, KeyError, AttributeError) as error:
        return Report(error=f"what the {stage} stage left is not readable: {error!r}", unreadable=True)
    return Report(uri)


def _metrics(uri: str) -> dict[str, float]:
    """The newest whole line of metrics.jsonl; empty before the first."""
    path = storage.join(uri, "metrics.jsonl")
    if not storage.exists(path):
        return {}
    with storage.open_input(path) as file:
        file.seek(max(0, file.size() - _TAIL_BYTES))
        lines = bytes(file.readall()).decode(errors="replace").splitlines()
    newest: dict[str, float] = {}
    for line in lines:
        found = _parse(line)
        newest |= {name: found[name] for name in _METRICS if isinstance(found.get(name), (int, float))}
    return newest


def _parse(line: str) -> dict[str, Any]:
    """A line's object; {} for one that is cut off."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and "step" in found else {}
