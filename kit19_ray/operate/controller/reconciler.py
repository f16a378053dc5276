"""One look at a KitRun: read it and its children, plan, write the status, carry out the actions.

Which children there are is known from a list at the first look, from the operator's own writes and from watch events.
Of what others do news may be lost, so a plan that waits for a child to go is made again from a fresh list, and so is
every plan once in five minutes. The status is written first, and only over the status and the spec it was planned
from; when somebody else was faster, all of it is done again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from kit19_ray.errors import OperateError
from kit19_ray.io import s3
from kit19_ray.operate.api.spec import STAGES, KitRunSpec, Stage, parse
from kit19_ray.operate.api.status import StageStatus, Status
from kit19_ray.operate.controller import observation, stage_output
from kit19_ray.operate.controller.actions import WATCH_SECONDS, Apply, Delete
from kit19_ray.operate.controller.conditions import Notice, notices
from kit19_ray.operate.controller.metrics import Metrics
from kit19_ray.operate.controller.observation import Child, Observed, Report
from kit19_ray.operate.controller.plan import Plan, invalid, plan
from kit19_ray.operate.kube_client import OBSERVED, ApiError, Cluster
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import Run

log = logging.getLogger(__name__)
T = TypeVar("T")

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_CONFLICTS = 20
_FRESH_SECONDS = 300.0
_REFUSALS = (400, 422)  # the object is wrong; every other refusal may pass
_THREADS = 8

Tell = Callable[[dict[str, Any], Notice], None]


@dataclass
class _Memory:
    """What is remembered of a run between looks; all of it may be lost."""

    reports: dict[Stage, Report] = field(default_factory=dict)
    read_at: dict[Stage, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    generation: int = 0
    children: dict[tuple[str, str], Child] = field(default_factory=dict)
    news: set[tuple[str, str]] = field(default_factory=set)  # children heard of since the last list was asked for
    listed_at: float = -_FRESH_SECONDS


class Reconciler:
    """Looks at KitRuns.

    Args:
        tell: posts an Event about a KitRun.
    """

    def __init__(self, cluster: Cluster, metrics: Metrics, tell: Tell) -> None:
        self._cluster, self._metrics, self._tell = cluster, metrics, tell
        self._memory: dict[str, _Memory] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="cluster")

    async def look(self, namespace: str, name: str) -> float | None:
        """One look; returns after how many seconds to look again at the latest, None when only news matter.

        Raises:
            ApiError: the API server cannot be reached, or refuses what the operator needs.
        """
        begun = time.monotonic()
        try:
            after = await self._look(namespace, name)
        except ApiError:
            self._metrics.reconciles.labels("error").inc()
            raise
        self._metrics.reconciles.labels("done").inc()
        self._metrics.seconds.observe(time.monotonic() - begun)
        return after

    def heard(self, uid: str, item: Mapping[str, Any], gone: bool) -> bool:
        """Takes in news of a child of the KitRun with this uid; False when nothing in it matters."""
        memory = self._memory.setdefault(uid, _Memory())
        known, key = memory.children, (item["kind"], item["metadata"]["name"])
        memory.news.add(key)
        if gone:
            return known.pop(key, None) is not None
        if key[0] not in OBSERVED:
            return False
        child, before = observation.child(item), known.get(key)
        known[key] = child
        return child != before

    async def _look(self, namespace: str, name: str) -> float | None:
        body = await self._call(self._cluster.run, namespace, name)
        for _ in range(_CONFLICTS):
            if body is None or "deletionTimestamp" in body["metadata"]:
                return None
            before = Status.model_validate(body.get("status") or {})
            made = await self._plan(body, before)
            written, body = await self._write(body, before, made.status)
            if written and body is not None:
                self._announce(body, before, made.status)
                return await self._carry_out(body, made)
        raise ApiError(409, f"{namespace}/{name}: its status changed {_CONFLICTS} times while it was being planned")

    async def children_gone(self, namespace: str, name: str, uid: str) -> bool:
        """Asks for the deletion of every child of a KitRun that is being deleted; True when none is left."""
        run = Run(name, namespace, uid)
        left = await self._call(self._cluster.children, run)
        if not left:
            self._memory.pop(uid, None)
            self._metrics.forget(namespace, name)
            return True
        known = [observation.child(item) for item in left]
        self._memory.setdefault(uid, _Memory()).children = {(child.kind, child.name): child for child in known}
        for child in known:
            if not child.deleting:
                await self._call(self._cluster.delete, child.kind, namespace, child.name)
        return False

    def childless(self, uid: str) -> bool:
        """Whether, by the news, a KitRun has no child."""
        memory = self._memory.get(uid)
        return memory is None or not memory.children

    async def _plan(self, body: dict[str, Any], before: Status) -> Plan:
        metadata = body["metadata"]
        run = Run(metadata["name"], metadata["namespace"], metadata["uid"])
        now = datetime.now(UTC)
        try:
            spec = read_spec(body)
        except OperateError as error:
            return invalid(metadata["generation"], before, str(error), now)
        memory = self._memory.setdefault(metadata["uid"], _Memory())
        if memory.generation != metadata["generation"]:
            memory.refused, memory.reports, memory.read_at = {}, {}, {}
            memory.generation = metadata["generation"]
        fresh = time.monotonic() - memory.listed_at >= _FRESH_SECONDS
        while True:
            if fresh:
                memory.news.clear()
                found = [observation.child(item) for item in await self._call(self._cluster.children, run)]
                listed = {(child.kind, child.name): child for child in found}
                # News that came while the list was on its way is newer than the list.
                told = {key: memory.children[key] for key in memory.news if key in memory.children}
                memory.children = {k: v for k, v in listed.items() if k not in memory.news} | told
                memory.listed_at = time.monotonic()
            children = tuple(memory.children.values())
            reports = await self._reports(run, spec, before, children, memory)
            missing = await self._missing(spec, run, before, children)
            observed = Observed(children, reports, missing, dict(memory.refused))
            made = plan(run, metadata["generation"], spec, before, observed, now)
            if fresh or not _waits(made):
                return made
            fresh = True

    async def _reports(
        self, run: Run, spec: KitRunSpec, status: Status, children: tuple[Child, ...], memory: _Memory
    ) -> dict[str, Report]:
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
                report = await self._call(_read, variables, run, spec, stage)
                memory.reports[stage], memory.read_at[stage] = report, now
                if report.unreadable:
                    self._metrics.storage_errors.inc()
                    log.warning("%s/%s: %s", run.namespace, run.name, report.error)
        return {stage: memory.reports[stage] for stage in wanted if stage in memory.reports}

    async def _missing(self, spec: KitRunSpec, run: Run, status: Status, children: tuple[Child, ...]) -> dict[str, str]:
        """By stage that is about to start, the Secrets its pods name and that are not there."""
        stage = next((s for s in STAGES if s not in spec.skip and not _done(s, spec, status)), "serve")
        if spec.suspend or any(child.stage == stage for child in children):
            return {}
        absent = [name for name in _secrets(spec, stage) if await self._secret(run.namespace, name) is None]
        if not absent:
            return {}
        names = ", ".join(absent)
        return {stage: f"Secret {names} is not in namespace {run.namespace}: create it, or mend the name in the spec"}

    async def _secret(self, namespace: str, name: str | None) -> dict[str, str] | None:
        """A Secret's values; empty where the operator may not read it, None where there is none."""
        if name is None:
            return {}
        try:
            return await self._call(self._cluster.secret, namespace, name)
        except ApiError as error:
            if error.status == 403:
                return {}
            raise

    async def _write(
        self, body: dict[str, Any] | None, before: Status, after: Status
    ) -> tuple[bool, dict[str, Any] | None]:
        """Writes the status where it changed. Returns False with the KitRun as it is now when that is another one than
        was planned for; a change of its labels or annotations alone is none.
        """
        planned = body
        while body is not None and planned is not None and _same(planned, body):
            metadata = body["metadata"]
            if after.dump() == before.dump() and "status" in body:
                return True, body
            place = metadata["namespace"], metadata["name"]
            try:
                await self._call(self._cluster.write_status, *place, metadata["resourceVersion"], after.dump())
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
                self._metrics.reconciles.labels("conflict").inc()
                body = await self._call(self._cluster.run, *place)
                continue
            self._metrics.show(*place, after)
            return True, body
        return False, body

    def _announce(self, body: dict[str, Any], before: Status, after: Status) -> None:
        if before.phase != after.phase:
            self._metrics.transitions.labels(after.phase).inc()
            log.info("%s/%s: %s", body["metadata"]["namespace"], body["metadata"]["name"], after.phase)
        for notice in notices(before, after):
            self._tell(body, notice)

    async def _carry_out(self, body: dict[str, Any], made: Plan) -> float | None:
        metadata, again = body["metadata"], False
        for action in made.actions:
            if isinstance(action, Delete):
                await self._call(self._cluster.delete, action.kind, metadata["namespace"], action.name)
                known = self._memory[metadata["uid"]].children
                if child := known.get((action.kind, action.name)):
                    known[action.kind, action.name] = replace(child, deleting=True)
            elif isinstance(action, Apply):
                known = self._memory[metadata["uid"]].children
                key = (action.manifest["kind"], action.manifest["metadata"]["name"])
                before = known.get(key)
                try:
                    made_object = await self._call(self._cluster.apply, action.manifest)
                    if self._memory[metadata["uid"]].children.get(key) is before:
                        self.heard(metadata["uid"], made_object, gone=False)
                        # One that was there before may be all it shall be: no news of it will come.
                        again = again or before is not None
                    else:
                        again = True  # news came meanwhile, and is newer than the answer
                except ApiError as error:
                    if error.status not in _REFUSALS:
                        raise
                    kind = action.manifest["kind"]
                    self._memory[metadata["uid"]].refused[action.stage] = (
                        f"the API server refuses the {kind}: {error.message}"
                    )
                    return 0.0
            else:
                await self._call(self._cluster.delete_run, metadata["namespace"], metadata["name"])
        return 0.0 if again else made.after

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        """A blocking call in a thread."""
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(function, *arguments))


def read_spec(body: Mapping[str, Any]) -> KitRunSpec:
    """The spec of a KitRun.

    The API server drops keys it does not know; what `kubectl apply` was given is looked at too, so that a mistyped
    key is told and not ignored.

    Raises:
        OperateError: a key or a value is wrong.
    """
    metadata = body["metadata"]
    applied = (metadata.get("annotations") or {}).get(APPLIED)
    if applied:
        parse(json.loads(applied).get("spec") or {}, metadata["name"])
    return parse(body["spec"], metadata["name"])


def _waits(made: Plan) -> bool:
    """Whether a plan waits for a child to go, of whose end there may have been no news."""
    stages = [getattr(made.status.stages, stage) for stage in (*STAGES, "serve")]
    return any(one.state == "Waiting" and one.message for one in stages)


def _same(planned: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a plan for `planned` is one for `now`."""
    keys = ("uid", "generation", "deletionTimestamp")
    same = all(planned["metadata"].get(key) == now["metadata"].get(key) for key in keys)
    return same and planned.get("status") == now.get("status")


def _read(variables: Mapping[str, str], run: Run, spec: KitRunSpec, stage: Stage) -> Report:
    with s3.using(variables, attempts=2):  # the next round asks again
        return stage_output.read(run, spec, stage)


def _done(stage: Stage, spec: KitRunSpec, status: Status) -> bool:
    known: StageStatus = getattr(status.stages, stage)
    return known.state == "Succeeded" and known.hash == naming.stage_hash(spec, stage)


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
    references = [(variable.manifest().get("valueFrom") or {}).get("secretKeyRef") for variable in pods.env]
    references += [source.manifest().get("secretRef") for source in pods.env_from]
    found += [one.get("name") for one in references if one and not one.get("optional")]
    return sorted({name for name in found if name})
