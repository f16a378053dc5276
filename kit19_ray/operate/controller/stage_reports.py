"""What a plan needs to know beside the children: what stages left in storage, and which Secrets are there."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from kit19_ray.io import s3
from kit19_ray.operate.api.spec import STAGES, KitRunSpec, Stage
from kit19_ray.operate.api.status import StageStatus, Status
from kit19_ray.operate.controller import stage_output
from kit19_ray.operate.controller.actions import WATCH_SECONDS
from kit19_ray.operate.controller.memory import RunMemory
from kit19_ray.operate.controller.metrics import ControllerMetrics
from kit19_ray.operate.controller.observation import Child, StageReport
from kit19_ray.operate.controller.threads import Threads
from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.operate.manifests import naming, serving_keys
from kit19_ray.operate.manifests.naming import RunRef

log = logging.getLogger(__name__)


class StageReports:
    """Asks storage and Secrets on behalf of a reconciliation."""

    def __init__(self, cluster: Cluster, metrics: ControllerMetrics, threads: Threads) -> None:
        self._cluster, self._metrics, self._threads = cluster, metrics, threads

    async def unreadable(self, run: RunRef, spec: KitRunSpec) -> str | None:
        """Whether the root can be read, asked before anything depends on it: why not, "" when it can, None for a
        missing Secret, which is told elsewhere.
        """
        secret = await self._secret(run.namespace, spec.storage.credentials_secret)
        if secret is None:
            return None
        report = await self._threads.call(_read, stage_output.variables(spec, secret), run, spec, "data")
        return (report.error or "") if report.unreadable else ""

    async def of_stages(
        self, run: RunRef, spec: KitRunSpec, status: Status, children: tuple[Child, ...], memory: RunMemory
    ) -> dict[str, StageReport]:
        """What the storage says of the stages of which something is not known yet."""
        wanted = [stage for stage in STAGES if stage not in spec.skip and _unknown(stage, status, children)]
        now = time.monotonic()
        due = [
            stage
            for stage in wanted
            if now - memory.read_at.get(stage, -WATCH_SECONDS) >= WATCH_SECONDS or _just_ended(stage, status, children)
        ]
        if due:
            secret = await self._secret(run.namespace, spec.storage.credentials_secret)
            variables = stage_output.variables(spec, secret)
            for stage in due:
                report = await self._threads.call(_read, variables, run, spec, stage)
                memory.reports[stage], memory.read_at[stage] = report, now
                if report.unreadable:
                    self._metrics.storage_errors.inc()
                    log.warning("%s/%s: %s", run.namespace, run.name, report.error)
        return {stage: memory.reports[stage] for stage in wanted if stage in memory.reports}

    async def missing_secrets(
        self, spec: KitRunSpec, run: RunRef, status: Status, children: tuple[Child, ...]
    ) -> dict[str, str]:
        """By stage that is about to start, the Secrets its pods name and that are not there."""
        stage = next((s for s in STAGES if s not in spec.skip and not _done(run, s, spec, status)), "serve")
        if spec.suspend or any(child.stage == stage for child in children):
            return {}
        absent = [name for name in _secrets(spec, stage) if await self._secret(run.namespace, name) is None]
        if not absent:
            keys = spec.serve.keys_secret if stage == "serve" else None
            held = await self._secret(run.namespace, keys)
            if held and serving_keys.FILE not in held:
                return {stage: f"Secret {keys} has no key {serving_keys.FILE}: the file of the server's API keys"}
            return {}
        names = ", ".join(absent)
        return {stage: f"Secret {names} is not in namespace {run.namespace}: create it, or mend the name in the spec"}

    async def keys_are_gone(self, run: RunRef, spec: KitRunSpec, children: list[Child]) -> bool:
        """Whether somebody deleted the Secret of API keys that the server's pods mount."""
        made = serving_keys.secret(run, spec)
        if made is None or not any(child.kind == "RayService" for child in children):
            return False
        return await self._secret(run.namespace, made["metadata"]["name"]) is None

    async def _secret(self, namespace: str, name: str | None) -> dict[str, str] | None:
        """A Secret's values; empty where the operator may not read it, None where there is none."""
        if name is None:
            return {}
        try:
            return await self._threads.call(self._cluster.secret, namespace, name)
        except KubeError as error:
            if error.status == 403:
                return {}
            raise


def _read(variables: Mapping[str, str], run: RunRef, spec: KitRunSpec, stage: Stage) -> StageReport:
    with s3.override_credentials(variables, attempts=2):  # the next round asks again
        return stage_output.read(run, spec, stage)


def _done(run: RunRef, stage: Stage, spec: KitRunSpec, status: Status) -> bool:
    known: StageStatus = getattr(status.stages, stage)
    return known.state == "Succeeded" and known.hash == naming.stage_id(run, spec, stage)


def _unknown(stage: Stage, status: Status, children: tuple[Child, ...]) -> bool:
    """Whether the storage may know more of a stage than the status does."""
    known: StageStatus = getattr(status.stages, stage)
    if known.state == "Succeeded":
        return known.uri is None or (stage == "evaluate" and not status.scores)
    return (stage == "train" and known.state == "Running") or _just_ended(stage, status, children)


def _just_ended(stage: Stage, status: Status, children: tuple[Child, ...]) -> bool:
    known: StageStatus = getattr(status.stages, stage)
    ended = any(child.stage == stage and child.job_status == "SUCCEEDED" for child in children)
    return ended and known.state != "Succeeded"


def _secrets(spec: KitRunSpec, stage: str) -> list[str]:
    """Names of the Secrets a stage's pods cannot start without."""
    pods = spec.pods(stage)
    found = [spec.storage.credentials_secret, *spec.images.pull_secrets]
    found += [spec.serve.keys_secret] if stage == "serve" else []
    references = [(variable.manifest().get("valueFrom") or {}).get("secretKeyRef") for variable in pods.env]
    references += [source.manifest().get("secretRef") for source in pods.env_from]
    found += [one.get("name") for one in references if one and not one.get("optional")]
    return sorted({name for name in found if name})
