"""What the storage says of a run: where a stage writes to, its newest metrics, the scores. Blocking; reads little."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kit19_ray.artifacts import gate, metrics_log, output_pointer, score_files
from kit19_ray.errors import UserError
from kit19_ray.operate.api.spec import KitRunSpec, Stage
from kit19_ray.operate.controller.observation import StageReport
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import RunRef

# metrics.jsonl's names and the status' own
_METRICS = (
    "progress", "step", "steps", "eta_seconds", "tokens_per_second", "loss", "validation_loss", "checkpoint_step",
    "checkpoint_failing_seconds",
)  # fmt: skip


def variables(spec: KitRunSpec, secret: Mapping[str, str] | None) -> dict[str, str]:
    """The AWS variables of a run's pods, by which the operator reads what they wrote.

    Without a key in them the operator's own credentials serve; without an endpoint it is AWS, or where the operator's
    own AWS_ENDPOINT_URL is.
    """
    own = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_REGION") if name in os.environ}
    asked = {"AWS_ENDPOINT_URL": spec.storage.endpoint, "AWS_REGION": spec.storage.region}
    return own | {name: value for name, value in asked.items() if value} | dict(secret or {})


def read(run: RunRef, spec: KitRunSpec, stage: Stage) -> StageReport:
    """What is known of a stage; `error` says why when the storage cannot be read."""
    try:
        left = output_pointer.read(naming.pointer_uri(run, spec, stage))
        if left is None:
            return StageReport(error=f"the {stage} stage left no pointer at {naming.pointer_uri(run, spec, stage)}")
        uri, finished = left
        if stage == "train":
            return StageReport(uri, _metrics(uri))
        if stage == "evaluate" and finished:
            return StageReport(uri, scores=gate.table(score_files.read(uri)))
    except UserError as error:
        return StageReport(error=str(error).replace("\n", "; "), unreadable=True)
    except (ValueError, KeyError, AttributeError) as error:
        return StageReport(error=f"what the {stage} stage left is not readable: {error!r}", unreadable=True)
    return StageReport(uri)


def _metrics(uri: str) -> dict[str, float]:
    """The newest figures of a run's metrics; empty before the first."""
    newest = metrics_log.newest(uri)
    return {name: value for name, value in newest.items() if name in _METRICS and isinstance(value, (int, float))}
