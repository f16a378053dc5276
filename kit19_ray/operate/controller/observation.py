"""What is seen of a run's children, and what KubeRay's two statuses of a RayJob come to. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kit19_ray.errors import EXIT_USER
from kit19_ray.operate.api.status import Step
from kit19_ray.operate.manifests.naming import ATTEMPT_ANNOTATION, BUILD_ANNOTATION, HASH_ANNOTATION, STAGE_LABEL

_EXIT = re.compile(r"exit(?:ed with)? code (\d+)", re.IGNORECASE)
_NO_PACKAGE = re.compile(r"No module named '?kit19_ray")
_MESSAGE_LENGTH = 1000  # characters of a job's message kept in the status


@dataclass(frozen=True)
class Child:
    """A RayJob, RayService or Ingress as the API server has it."""

    kind: str
    name: str
    stage: str
    hash: str
    attempt: int
    build: str
    created: datetime
    deleting: bool = False
    suspended: bool = False
    """A RayJob that Kueue holds back."""
    job_status: str = ""
    deployment_status: str = ""
    reason: str = ""
    message: str = ""
    placed: bool = False
    """A RayJob whose head pod has a node."""
    answers: bool = False
    """A RayService that answers, in whatever version."""
    ready: bool = False
    """A RayService that answers in the version last applied, its application RUNNING."""
    broken: bool = False
    """A RayService whose newest application failed."""


@dataclass(frozen=True)
class StageReport:
    """What the storage says of a stage."""

    uri: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the newest line of metrics.jsonl."""
    scores: Mapping[str, Mapping[str, float]] | None = None
    error: str | None = None
    """Why nothing, or not all, is known."""
    unreadable: bool = False
    """The storage itself could not be read."""


@dataclass(frozen=True)
class Observed:
    """Everything a plan is made from beside the KitRun itself."""

    children: tuple[Child, ...] = ()
    reports: Mapping[str, StageReport] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    """By stage, why its child cannot start yet, such as a Secret that is not there."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """By stage, why the API server will never take its child as it is."""
    rejected: Mapping[str, str] = field(default_factory=dict)
    """By stage, why the API server did not take its child this time: a quota, an admission, an unknown kind."""
    unreadable: str | None = None
    """Why the root cannot be read; "" when it can, None before anybody tried."""
    warning: str | None = None
    """What of the KitRun is not followed."""
    keys_gone: bool = False
    """The Secret of API keys that was made for the server is not there any more."""


@dataclass(frozen=True)
class Verdict:
    """What a RayJob's statuses come to."""

    step: Step
    reason: str = ""
    message: str = ""
    again: bool = True
    """Whether a failure is worth another cluster."""


def child(body: Mapping[str, Any]) -> Child:
    """A child from its manifest with status."""
    metadata, status = body["metadata"], body.get("status") or {}
    annotations = metadata.get("annotations") or {}
    attempt = annotations.get(ATTEMPT_ANNOTATION, "0")
    return Child(
        kind=body["kind"],
        name=metadata["name"],
        stage=(metadata.get("labels") or {}).get(STAGE_LABEL, ""),
        hash=annotations.get(HASH_ANNOTATION, ""),
        attempt=int(attempt) if attempt.isdigit() else 0,
        build=annotations.get(BUILD_ANNOTATION, ""),
        created=instant(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        suspended=bool(body.get("spec", {}).get("suspend")),
        job_status=status.get("jobStatus", ""),
        deployment_status=status.get("jobDeploymentStatus", ""),
        reason=status.get("reason", ""),
        message=_service_message(status) if body["kind"] == "RayService" else status.get("message", ""),
        placed=bool(((status.get("rayClusterStatus") or {}).get("head") or {}).get("podIP")),
        **_serving(metadata, status),
    )


def _serving(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, bool]:
    """`answers`, `ready` and `broken` of a RayService.

    KubeRay's Ready means that some proxy is an endpoint, whatever it is a proxy for: Ray Serve's own word on the
    applications decides. A pending service is the next version, on a cluster of its own.
    """
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    active, pending = status.get("activeServiceStatus") or {}, status.get("pendingServiceStatus") or {}
    current = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    upgrading = conditions.get("UpgradeInProgress") == "True" or bool(pending.get("rayClusterName"))
    endpoint, states = conditions.get("Ready") == "True", _applications(active)
    newest = _applications(pending) if upgrading else states
    return {
        "answers": endpoint and "RUNNING" in states,
        "ready": current and endpoint and not upgrading and bool(states) and states == {"RUNNING"},
        "broken": current and "DEPLOY_FAILED" in newest,
    }


def _applications(service: Mapping[str, Any]) -> set[str]:
    return {str(one.get("status")) for one in (service.get("applicationStatuses") or {}).values()}


def _service_message(status: Mapping[str, Any]) -> str:
    """What Ray Serve says of the applications that do not run, or why KubeRay is not ready."""
    said = []
    for part in ("pendingServiceStatus", "activeServiceStatus"):
        for application in ((status.get(part) or {}).get("applicationStatuses") or {}).values():
            if application.get("status") not in ("RUNNING", None):
                said.append(f"{application['status']}: {application.get('message', '')}".rstrip(": "))
    said += [c["message"] for c in status.get("conditions", []) if c["type"] == "Ready" and c["status"] != "True"]
    return said[0][:_MESSAGE_LENGTH] if said else ""


def judge(job: Child, gang: bool = False) -> Verdict:
    """Queued, Starting, Running, Succeeded or Failed, from both statuses.

    `jobStatus` is Ray's word on the driver, `jobDeploymentStatus` KubeRay's on everything round it: a driver that
    succeeded did, even when KubeRay then failed to see it in time; a Running or Complete deployment alone proves
    nothing, for KubeRay calls it Running before Ray has the job.

    Args:
        gang: a batch scheduler places the pods, so one that has no node yet is in that scheduler's queue.
    """
    deployment, ray = job.deployment_status, job.job_status
    if job.suspended or deployment in ("Suspended", "Suspending"):
        return Verdict("Queued", "Queued", "held back by its queue")
    if deployment in ("Complete", "Failed") and ray == "SUCCEEDED":
        return Verdict("Succeeded")
    if deployment == "ValidationFailed":
        return Verdict("Failed", "ValidationFailed", f"KubeRay refuses the RayJob: {job.message}", again=False)
    if deployment in ("Complete", "Failed") and ray == "STOPPED":
        return Verdict(
            "Failed", "Stopped", "the job was stopped by hand; change the spec to start it again", again=False
        )
    if deployment == "Failed" or (deployment == "Complete" and ray == "FAILED"):
        return explain(job)
    if deployment in ("Running", "Complete") and ray not in ("", "PENDING"):
        return Verdict("Running")
    if gang and deployment == "Initializing" and not job.placed:
        return Verdict("Queued", "Queued", "waiting for its batch scheduler to place the pods")
    reason = "Submitting" if deployment in ("Running", "Complete") else deployment or "New"
    return Verdict("Starting", reason, job.message)


def explain(job: Child) -> Verdict:
    """Why a RayJob failed, in words to act on."""
    code = _EXIT.search(job.message)
    if _NO_PACKAGE.search(job.message):
        said = "the image has no kit19-ray in its Python: build it from docker/, or name another in spec.images"
        return Verdict("Failed", "ImageWithoutPackage", said, again=False)
    said = last_error(job.message)
    if code and int(code[1]) == EXIT_USER:
        return Verdict("Failed", "UserError", said, again=False)
    return Verdict("Failed", job.reason or "JobFailed", said or f"{job.name} failed; KubeRay says no more")


def last_error(message: str) -> str:
    """The `error: ...` with which kit19 ends, hint included; else the end of the message."""
    at = message.rfind("error: ")
    said = message[at + len("error: ") :] if at >= 0 else message[-_MESSAGE_LENGTH:]
    return said.strip()[:_MESSAGE_LENGTH]


def instant(text: str) -> datetime:
    """A point in time from RFC 3339."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
