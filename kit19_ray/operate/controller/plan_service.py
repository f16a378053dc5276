"""The server of a KitRun: its RayService and Ingress are applied, followed, taken away. Pure, a part of `plan`."""

from __future__ import annotations

from kit19_ray.operate.api.status import Phase, StageStatus
from kit19_ray.operate.controller.actions import WATCH_SECONDS, Apply, MakeKeys, Planning
from kit19_ray.operate.controller.observation import Child, stamp
from kit19_ray.operate.manifests import children, serving_keys
from kit19_ray.operate.manifests.naming import BUILD_ANNOTATION
from kit19_ray.utils.json_types import Json


def serve(work: Planning) -> Phase:
    status, spec, known = work.status, work.spec, work.status.stages.serve
    status.stage = "serve"
    if "serve" in work.observed.refused:
        known.state, known.reason, known.message = "Failed", "Refused", work.observed.refused["serve"]
        status.message = known.message
        return "Failed"
    wanted = children.ray_service(work.run, spec, children.known_uris(status))
    build = wanted["metadata"]["annotations"][BUILD_ANNOTATION]
    service, entry = work.one("RayService"), children.ingress(work.run, spec)
    known.child, known.hash = wanted["metadata"]["name"], status.stages.evaluate.hash
    if entry is None and (old := work.one("Ingress")):
        work.delete(old)
    rejected = work.observed.rejected.get("serve")
    status.keys_secret, keys = serving_keys.name(work.run, spec), serving_keys.secret(work.run, spec)
    if service is None or service.deleting or (service.build, service.hash) != (build, known.hash):
        missing = _not_servable(work, service)
        known.state = "Waiting" if missing or rejected else "Starting"
        known.reason = "Missing" if missing else "Rejected" if rejected else "Applied"
        known.message = missing or rejected
        waits = missing or rejected
        known.started_at = known.started_at or stamp(work.now) if waits else stamp(work.now)
        if waits:
            work.waits.append(WATCH_SECONDS)
        if not missing:
            work.actions += [MakeKeys(keys, "serve")] if keys else []
            work.actions.append(Apply(wanted, "serve"))
    elif service.ready:
        known.state, known.reason, known.message = "Running", "Ready", None
        known.running_at = known.running_at or stamp(work.now)
    else:
        if known.state == "Running" or known.started_at is None:
            known.started_at = stamp(work.now)
        known.state, known.reason, known.message = "Starting", "NotReady", service.message or "the server is starting"
    if keys and work.observed.keys_gone and not any(isinstance(action, MakeKeys) for action in work.actions):
        work.actions.append(MakeKeys(keys, "serve"))
    status.message = known.message
    if entry is not None and not _is_there(work.one("Ingress"), entry):
        work.actions.append(Apply(entry, "serve"))
    answers = service is not None and service.answers
    status.endpoint = children.endpoint(work.run, spec) if known.state == "Running" or answers else None
    if known.state == "Running":
        return "Serving"
    known.running_at = None
    said = known.message or "KubeRay says nothing"
    if known.state == "Starting" and service is not None and service.broken and known.reason == "NotReady":
        known.state, known.reason, known.message = "Failed", "DeployFailed", f"{known.child} failed: {said}"
    elif known.started_at and work.deadline_passed(known.started_at, spec.deadlines.serve):
        known.state, known.reason = "Failed", "ServeDeadline"
        known.message = f"{known.child} did not answer within {spec.deadlines.serve} seconds: {said}"
    else:
        return "Deploying"
    if answers:
        known.message += "; the model before this one is served on"
    status.message = known.message
    return "Failed"


def _not_servable(work: Planning, service: Child | None) -> str | None:
    """What the server has to wait for, or None."""
    if service is not None and service.deleting:
        return f"waiting for {service.name} to go"
    if not work.spec.config.serve.model and not work.status.stages.train.uri:
        report = work.observed.reports.get("train")
        said = (report and report.error) or "the train stage left no pointer"
        return f"the model's URI is not known: {said}; let the operator read the root"
    return work.observed.missing.get("serve")


def _is_there(found: Child | None, wanted: Json) -> bool:
    return found is not None and found.build == wanted["metadata"]["annotations"][BUILD_ANNOTATION]


def serves_this(work: Planning) -> bool:
    """Whether the server has the model of this very evaluation, not one that passed the gate before it."""
    service = work.one("RayService")
    return service is not None and service.hash == work.status.stages.evaluate.hash


def stop(work: Planning, only_this: bool = False) -> None:
    """Takes the server away; with `only_this` only when it serves the model that was just judged."""
    if only_this and work.one("RayService") and not serves_this(work):
        return
    for kind in ("RayService", "Ingress"):
        if child := work.one(kind):
            work.delete(child)
    work.status.stages.serve = StageStatus()
    work.status.endpoint = work.status.keys_secret = None
