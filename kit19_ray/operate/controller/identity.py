"""Whether a stage that was begun is still the one the spec asks for, whichever operator began it. Pure."""

from __future__ import annotations

from dataclasses import replace

from kit19_ray.operate.api.spec import STAGES, KitRunSpec
from kit19_ray.operate.api.status import StageStatus, Status
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import RunRef


def identify(run: RunRef, spec: KitRunSpec, status: Status, generation: int) -> RunRef:
    """The run with each stage's hash: that by which it was begun, as long as what it depends on is the same.

    Another version of the operator hashes otherwise, if only because the config has got a key more. Where nobody edited
    the spec since the status was written, what was begun is what is asked for, and goes on: a job of days is not begun
    anew because the operator was upgraded.
    """
    # What was begun is then of the spec before the one that could not be read.
    unread = status.phase == "Failed" and status.stage is None
    edited = generation != status.observed_generation or unread
    hashes: dict[str, str] = {}
    for stage in STAGES:
        known: StageStatus = getattr(status.stages, stage)
        wanted = naming.stage_hash(spec, stage)
        same = known.hash is not None and (not edited or (known.inputs or known.hash) == wanted)
        hashes[stage] = known.hash if same and known.hash else wanted
    return replace(run, hashes=hashes)


def remember(status: Status, spec: KitRunSpec) -> None:
    """Writes down what this version's hash is of each stage that goes by another one's."""
    for stage in STAGES:
        known: StageStatus = getattr(status.stages, stage)
        wanted = naming.stage_hash(spec, stage)
        known.inputs = wanted if known.hash not in (None, wanted) else None
