"""RayJobs and KitRuns made and followed by a person, with the rights of their kubeconfig.

What counts is the status: KubeRay's two of a RayJob, phase and progress of a KitRun. The log is that of the heads'
`driver-log` containers, which have the driver's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypedDict

import kubernetes
import yaml

from kit19_ray.artifacts import output_pointer
from kit19_ray.config.schema import Config
from kit19_ray.errors import EXIT_USER, OperateError, StorageError
from kit19_ray.jobs import submission
from kit19_ray.jobs.job import ENDED, Gone, JobReport, State, Unreachable
from kit19_ray.jobs.pod_logs import PodLogs
from kit19_ray.operate.api.crd import API_VERSION, PLURAL
from kit19_ray.operate.api.spec import STAGES, KitRunSpec, Stage, parse
from kit19_ray.operate.api.status import Status
from kit19_ray.operate.controller.observation import child, judge
from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.operate.manifests import children, naming
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.utils.console import say
from kit19_ray.utils.json_types import Json

Kind = Literal["RayJob", "KitRun"]
MANAGER = "kit19-submit"
_PATHS = {"RayJob": ("/apis/ray.io/v1", "rayjobs"), "KitRun": (f"/apis/{API_VERSION}", PLURAL)}
_PHASES: dict[str, State] = {
    "Serving": "SUCCEEDED",
    "Succeeded": "SUCCEEDED",
    "GateFailed": "FAILED",
    "Failed": "FAILED",
    "Suspended": "STOPPED",
}


def connect(namespace: str | None) -> tuple[Cluster, str]:
    """The cluster of KUBECONFIG's current context, and the namespace asked for, the context's, or `default`.

    Raises:
        OperateError: there is no kubeconfig.
    """
    try:
        _, context = kubernetes.config.list_kube_config_contexts()
        client = kubernetes.config.new_client_from_config()
    except kubernetes.config.ConfigException as error:
        raise OperateError(f"no cluster: {error}", hint="set KUBECONFIG, or give a dashboard with --address") from None
    return Cluster(client), namespace or context["context"].get("namespace") or "default"


def make_spec(config: Config, spec: Mapping[str, Any], image: str | None) -> KitRunSpec:
    """The spec of a KitRun, or of the one stage of it that becomes a RayJob.

    Args:
        spec: everything but `config`, as in a KitRun.
        image: instead of `images.train` of the spec.

    Raises:
        OperateError: keys that are wrong, all at once; a credential in the config or the spec.
    """
    if "config" in spec:
        raise OperateError("--spec: `config` is what --config is for")
    images = spec.get("images", {})
    if image is not None and isinstance(images, Mapping):
        images = {**images, "train": image}
    config_tree = config.model_dump(mode="json", exclude_unset=True)
    tree = {**spec, "images": images, "config": config_tree}
    submission.refuse_secrets({"spec": yaml.safe_dump(tree, allow_unicode=True)})
    return parse(tree, "spec")


def create_job(cluster: Cluster, run: RunRef, spec: KitRunSpec, stage: str, anew: bool) -> tuple[KubeJob, bool]:
    """The RayJob of one stage, and whether it was created now; one in flight is taken over unless `anew`.

    Raises:
        OperateError: the stage is none, or the API server refuses the RayJob.
    """
    submission.check_verb(stage, STAGES)
    known: Stage = next(one for one in STAGES if one == stage)
    with translated():
        for attempt in range(1, 10_000):
            job = KubeJob(
                cluster,
                "RayJob",
                run.namespace,
                naming.job_name(run, spec, known, attempt),
                naming.pointer_uri(run, spec, known),
            )
            try:
                found = job.poll()
            except Gone:
                break
            if found.state not in ENDED and not anew:
                return job, False
        # Of the run's pods, whichever job they are of; without an owner it stays for the next one.
        if policy := children.network_policy(run, spec):
            cluster.apply(policy, MANAGER)
        cluster.create(children.ray_job(run, spec, known, attempt, {}))
    return job, True


def apply_run(cluster: Cluster, run: RunRef, spec: KitRunSpec) -> KubeJob:
    """The KitRun with this spec, created or changed; a stage whose part did not change does not run again.

    Raises:
        OperateError: the API server refuses it.
    """
    job = KubeJob(cluster, "KitRun", run.namespace, run.name)
    tree = spec.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"suspend": False}
    body = {
        "apiVersion": API_VERSION,
        "kind": "KitRun",
        "metadata": {"name": run.name, "namespace": run.namespace},
        "spec": tree,
    }
    with translated():
        query = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        cluster.request("PATCH", job.path, body, "application/apply-patch+yaml", query)
    return job


class KubeJob:
    """A RayJob or a KitRun (`job.Job`).

    Args:
        pointer_uri: where a RayJob's stage leaves its output's URI.
    """

    def __init__(self, cluster: Cluster, kind: Kind, namespace: str, name: str, pointer_uri: str | None = None) -> None:
        self._cluster, self.kind, self._namespace, self.id = cluster, kind, namespace, name
        self._pointer = pointer_uri
        self.folder = _folder(kind, namespace)
        self.path = f"{self.folder}/{name}"
        pods = {"RayJob": f"{naming.JOB_LABEL}={name}", "KitRun": f"{naming.RUN_LABEL}={RunRef(name, namespace).label}"}
        self._logs = PodLogs(cluster, namespace, pods[kind])

    def body(self) -> Json:
        """The object as the API server has it."""
        with translated():
            return self._cluster.request("GET", self.path)

    def poll(self) -> JobReport:
        """Its status now."""
        found = self.body() | {"kind": self.kind}
        return job_report(found) if self.kind == "RayJob" else run_report(found)

    def tail(self, emit: Callable[[str], None]) -> None:
        """The log of the pods, as long as they may be read."""
        try:
            with translated():
                self._logs.tail(emit)
        except OperateError as error:
            say(f"submit: the log cannot be read ({error.message}); the status is followed")
            threading.Event().wait()

    def log(self) -> str:
        """The log of the pods, then the stage's output as far as the root can be read from here."""
        try:
            with translated():
                text = self._logs.read()
        except (OperateError, Gone):
            text = ""
        if self._pointer is None:
            return text
        try:
            left = output_pointer.read(self._pointer)
        except StorageError:
            return text  # the root is the cluster's, not necessarily ours
        return f"{text}{left[0]}\n" if left and left[1] and left[0] not in text else text

    def stop(self) -> None:
        """Deletes a RayJob with its cluster; suspends a KitRun, which frees its pods and keeps what it has."""
        with translated():
            if self.kind == "RayJob":
                self._cluster.delete(self.kind, self._namespace, self.id)
            else:
                patch = {"spec": {"suspend": True}}
                self._cluster.request("PATCH", self.path, patch, "application/merge-patch+json")

    def commands(self) -> tuple[str, str]:
        """The commands that follow it and that stop it."""
        where = f"{self.id} --{self.kind.lower()} --namespace {self._namespace}"
        return f"kit19 status {where} --follow", f"kit19 stop {where}"


class RayJobRow(TypedDict):
    """A RayJob as `kit19 status` lists it."""

    id: str
    status: State
    created: str
    message: str


class KitRunRow(TypedDict):
    """A KitRun as `kit19 status` lists it."""

    id: str
    status: str
    stage: str | None
    progress: str | None
    score: str | None
    created: str
    message: str


def rows(cluster: Cluster, kind: Kind, namespace: str) -> list[RayJobRow | KitRunRow]:
    """The KitRuns of a namespace, or the RayJobs that `submit` and the operator made there; JSON-ready."""
    query = {"labelSelector": naming.RUN_LABEL} if kind == "RayJob" else {}
    with translated():
        items = cluster.request("GET", _folder(kind, namespace), query=query)["items"]
    row: Callable[[str, Json], RayJobRow | KitRunRow] = _job_row if kind == "RayJob" else _run_row
    return [row(item["metadata"]["name"], item | {"kind": kind}) for item in items]


def _job_row(name: str, body: Json) -> RayJobRow:
    report, created = job_report(body), body["metadata"]["creationTimestamp"]
    return {"id": name, "status": report.state, "created": created, "message": report.message}


def _run_row(name: str, body: Json) -> KitRunRow:
    status = Status.model_validate(body.get("status") or {})
    return {
        "id": name,
        "status": status.phase,
        "stage": status.stage,
        "progress": status.progress,
        "score": status.score,
        "created": body["metadata"]["creationTimestamp"],
        "message": run_report(body).message,
    }


def _folder(kind: Kind, namespace: str) -> str:
    api, plural = _PATHS[kind]
    return f"{api}/namespaces/{namespace}/{plural}"


def job_report(body: Mapping[str, Any]) -> JobReport:
    """What both of a RayJob's statuses come to."""
    job = child(body)
    verdict = judge(job)
    if verdict.step == "Succeeded":
        return JobReport("SUCCEEDED")
    if verdict.step == "Failed":
        state: State = "STOPPED" if verdict.reason == "Stopped" else "FAILED"
        code = EXIT_USER if verdict.reason == "UserError" else None
        return JobReport(state, f"{verdict.reason}: {verdict.message}", code, verdict.reason)
    said = ": ".join(part for part in (verdict.step, verdict.message) if part)
    return JobReport("RUNNING" if verdict.step == "Running" else "PENDING", "", None, said)


def run_report(body: Mapping[str, Any]) -> JobReport:
    """What phase and conditions of a KitRun come to, once the operator has seen the spec as it is."""
    status = Status.model_validate(body.get("status") or {})
    if (status.observed_generation or 0) < body["metadata"].get("generation", 0):
        return JobReport("PENDING", detail="waiting for the operator")
    parts = [status.stage, status.progress, status.eta and f"{status.eta} left", status.message]
    if status.phase == "Serving":
        parts = [status.endpoint]
    detail = ", ".join([status.phase, *(part for part in parts if part)])
    state = _PHASES.get(status.phase, "RUNNING" if status.stage else "PENDING")
    failed = status.condition("Failed")
    code = EXIT_USER if failed.reason in ("UserError", "InvalidSpec") else None
    return JobReport(state, f"{failed.reason}: {status.message}" if state == "FAILED" else "", code, detail)


@contextmanager
def translated() -> Iterator[None]:
    """Turns what the API server says into Unreachable, Gone, or the user's mistake.

    Raises:
        OperateError: it refuses.
    """
    try:
        yield
    except KubeError as error:
        if error.status == 404 and '" not found' in error.message:
            raise Gone(error.message) from None
        if error.status == 404:
            raise OperateError(
                "the cluster knows no such kind of object", hint="install KubeRay, and helm/kit19-operator for KitRuns"
            ) from None
        if error.status in (0, 429) or error.status >= 500:
            raise Unreachable(error.message) from None
        raise OperateError(f"the API server refuses: {error.message}") from None
