"""Names, labels and hashes: the same KitRun always has the same children."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.io import storage
from kit19_ray.operate.api.spec import KitRunSpec, Stage
from kit19_ray.utils.json_types import Json

RUN_LABEL, STAGE_LABEL, JOB_LABEL = "kit19.dev/run", "kit19.dev/stage", "kit19.dev/job"
HASH_ANNOTATION, ATTEMPT_ANNOTATION, BUILD_ANNOTATION = "kit19.dev/hash", "kit19.dev/attempt", "kit19.dev/build"
MANAGER = "kit19-operator"
_NAME_LENGTH = 40  # KubeRay allows 47: it appends to RayJob and RayService names what must stay under 63


@dataclass(frozen=True)
class RunRef:
    """Which KitRun: what children need to know of it.

    Attributes:
        uid: of the KitRun, for owner references; None makes children without an owner.
        hashes: by stage, where another one than `stage_hash` is kept: that of a stage begun by another version.
    """

    name: str
    namespace: str
    uid: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """Value of the run label; a label holds 63 characters, a name 253."""
        return self.name if len(self.name) <= 63 else f"{self.name[:54].rstrip('-.')}-{_short([self.name])}"


def _short(value: Any) -> str:
    return manifest.digest(value)[:8]


def child(run: RunRef, stage: str, suffix: str) -> str:
    """A DNS-1035 name of at most 40 characters: the run's name as far as it fits, the stage, a hash."""
    tail = f"-{stage}-{suffix}"
    head = re.sub(r"[^a-z0-9-]", "-", run.name.lower())
    if not head[0].isalpha():
        head = f"r{head}"
    return head[: _NAME_LENGTH - len(tail)].rstrip("-") + tail


def stage_hash(spec: KitRunSpec, stage: Stage) -> str:
    """Of everything the stage's output depends on: its config slice, the seed, the root and the stages before it.

    Fields that change only how fast or where a stage runs do not count, so that to change them runs nothing again.
    """
    config = spec.config
    parts: Json = {"root": config.root, "seed": config.seed, "data": _data(spec)}
    if stage in ("train", "evaluate"):
        parts["train"] = config.train.identity()
    if stage == "evaluate":
        parts["evaluate"] = config.evaluate.identity() | {"model": config.evaluate.model}
    return _short(parts)


def stage_id(run: RunRef, spec: KitRunSpec, stage: Stage) -> str:
    """The hash a stage of a run goes by: `stage_hash`, or that of the version that began it."""
    return run.hashes.get(stage) or stage_hash(spec, stage)


def _data(spec: KitRunSpec) -> Json:
    data = spec.config.data
    # Where the sources are stands for what is in them: the operator does not read them.
    return data.identity() | {"sources": data.sources, "tasks_dir": data.tasks_dir, "named": spec.config.train.data}


def job_name(run: RunRef, spec: KitRunSpec, stage: Stage, attempt: int) -> str:
    """Name of the RayJob: one for each attempt at each hash."""
    return child(run, stage, _short([run.namespace, run.name, stage_id(run, spec, stage), attempt]))


def service_name(run: RunRef) -> str:
    """Name of the RayService: the same for the life of the KitRun, so that its address stays."""
    return child(run, "serve", _short([run.namespace, run.name]))


def policy_name(run: RunRef) -> str:
    """Name of the NetworkPolicy of a run's pods."""
    return child(run, "network", _short([run.namespace, run.name]))


def keys_name(run: RunRef) -> str:
    """Name of the Secret with the server's API keys, where the spec names none."""
    return child(run, "keys", _short([run.namespace, run.name]))


def log_uri(run: RunRef, spec: KitRunSpec, stage: Stage, attempt: int) -> str:
    """Where the driver of a stage leaves its log: it outlives the pods."""
    return pointer_uri(run, spec, stage).removesuffix(".json") + f"-{attempt}.log"


def pointer_uri(run: RunRef, spec: KitRunSpec, stage: Stage) -> str:
    """Where a stage leaves the URI of its output for the operator (`kit19_ray.artifacts.output_pointer`)."""
    name = f"{stage}-{stage_id(run, spec, stage)}.json"
    return storage.join(spec.config.root, "kitruns", run.namespace, run.name, name)


def labels(run: RunRef, stage: str) -> dict[str, str]:
    """Labels of every child."""
    return {"app.kubernetes.io/name": "kit19"} | pod_labels(run, stage)


def pod_labels(run: RunRef, stage: str) -> dict[str, str]:
    """Labels of a stage's pods. Not app.kubernetes.io/name: that is KubeRay's there, and its Services select by it."""
    return {
        "app.kubernetes.io/component": stage,
        "app.kubernetes.io/managed-by": MANAGER,
        RUN_LABEL: run.label,
        STAGE_LABEL: stage,
    }


def owner(run: RunRef) -> Json:
    """Of a child's metadata: it goes with its KitRun."""
    if run.uid is None:
        return {}
    reference = {
        "apiVersion": "kit19.dev/v1alpha1",
        "kind": "KitRun",
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"ownerReferences": [reference]}
