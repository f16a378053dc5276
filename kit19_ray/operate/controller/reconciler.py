"""One reconciliation of a KitRun: read it and its children, plan, write the status, carry out the actions.

Which children there are is known from a list at the first look, from the operator's own writes and from watch events.
Of what others do news may be lost, so a plan that waits for a child to go is made again from a fresh list, and so is
every plan once in five minutes. The status is written first, and only over the status and the spec it was planned
from; when somebody else was faster, all of it is done again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kit19_ray.errors import OperateError
from kit19_ray.operate.api import support
from kit19_ray.operate.api.spec import STAGES, KitRunSpec, parse
from kit19_ray.operate.api.status import Status
from kit19_ray.operate.controller import observation
from kit19_ray.operate.controller.actions import WATCH_SECONDS, Apply, Delete, MakeKeys
from kit19_ray.operate.controller.claims import RENEW_SECONDS, Claims
from kit19_ray.operate.controller.conditions import Notice, notices
from kit19_ray.operate.controller.identity import identify
from kit19_ray.operate.controller.memory import FRESH_SECONDS, RunMemory
from kit19_ray.operate.controller.metrics import ControllerMetrics
from kit19_ray.operate.controller.observation import Observed
from kit19_ray.operate.controller.plan import Plan, invalid, plan
from kit19_ray.operate.controller.stage_reports import StageReports
from kit19_ray.operate.controller.threads import Threads
from kit19_ray.operate.kube_client import OBSERVED, Cluster, KubeError
from kit19_ray.operate.manifests import serving_keys
from kit19_ray.operate.manifests.naming import RunRef
from kit19_ray.utils.json_types import Json

log = logging.getLogger(__name__)

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_CONFLICTS = 20
_WRONG = (400, 422)  # the object is wrong; every other refusal may pass

Tell = Callable[[Json, Notice], None]
FINALIZER = "kit19.dev/operator"
"""Of earlier versions; taken away wherever it is met, for owner references do its work and outlive no operator."""


class Reconciler:
    """Brings KitRuns forward.

    Args:
        tell: posts an Event about a KitRun.
        claims: which namespaces are another release's; None takes all as this one's.
    """

    def __init__(self, cluster: Cluster, metrics: ControllerMetrics, tell: Tell, claims: Claims | None = None) -> None:
        self._cluster, self._metrics, self._tell, self._claims = cluster, metrics, tell, claims
        self._memory: dict[str, RunMemory] = {}
        self._threads = Threads()
        self._stages = StageReports(cluster, metrics, self._threads)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One reconciliation; returns in how many seconds the next is due at the latest, None when only events matter.

        Raises:
            ApiError: the API server cannot be reached, or refuses what the operator needs.
        """
        begun = time.monotonic()
        try:
            requeue_after = await self._reconcile(namespace, name)
        except KubeError:
            self._metrics.reconciles.labels("error").inc()
            raise
        self._metrics.reconciles.labels("done").inc()
        self._metrics.seconds.observe(time.monotonic() - begun)
        return requeue_after

    def on_child_event(self, uid: str, item: Mapping[str, Any], gone: bool) -> bool:
        """Takes in an event of a child of the KitRun with this uid; False when nothing in it matters."""
        memory = self._memory.setdefault(uid, RunMemory())
        known, key = memory.children, (item["kind"], item["metadata"]["name"])
        memory.news.add(key)
        if gone:
            return known.pop(key, None) is not None
        if key[0] not in OBSERVED:
            return False
        child, before = observation.child(item), known.get(key)
        known[key] = child
        return child != before

    def forget(self, namespace: str, name: str, uid: str) -> None:
        """Drops what is remembered of a KitRun that is gone; its children go by their owner references."""
        self._memory.pop(uid, None)
        self._metrics.forget(namespace, name)

    async def _reconcile(self, namespace: str, name: str) -> float | None:
        body = await self._threads.call(self._cluster.run, namespace, name)
        if body is not None and await self._is_anothers(body):
            return RENEW_SECONDS
        if body is not None and FINALIZER in body["metadata"].get("finalizers", []):
            others = [one for one in body["metadata"]["finalizers"] if one != FINALIZER]
            await self._threads.call(self._cluster.release, namespace, name, others)
            body = await self._threads.call(self._cluster.run, namespace, name)
        for _ in range(_CONFLICTS):
            if body is None or "deletionTimestamp" in body["metadata"]:
                return None
            before = Status.model_validate(body.get("status") or {})
            made = await self._plan(body, before)
            written, body = await self._write(body, before, made.status)
            if written and body is not None:
                self._announce(body, before, made.status)
                return await self._apply_actions(body, made)
        raise KubeError(409, f"{namespace}/{name}: its status changed {_CONFLICTS} times while it was being planned")

    async def _is_anothers(self, body: Json) -> bool:
        """Whether another release carries out the KitRuns of this namespace; the KitRun gets an Event that says so."""
        metadata = body["metadata"]
        other = await self._claims.other(metadata["namespace"]) if self._claims else None
        self._metrics.contested.labels(metadata["namespace"]).set(int(other is not None))
        memory = self._memory.setdefault(metadata["uid"], RunMemory())
        if other is not None and memory.other != other:
            said = f"another release of the operator, {other}, works in this namespace too, and carries this KitRun out"
            self._tell(body, Notice("Warning", "TwoOperators", said))
        memory.other = other
        return other is not None

    async def _plan(self, body: Json, before: Status) -> Plan:
        metadata = body["metadata"]
        run = RunRef(metadata["name"], metadata["namespace"], metadata["uid"])
        now = datetime.now(UTC)
        try:
            spec, warning = read_spec(body)
        except OperateError as error:
            return invalid(metadata["generation"], before, str(error), now)
        run = identify(run, spec, before, metadata["generation"])
        memory = self._memory.setdefault(metadata["uid"], RunMemory())
        if memory.generation != metadata["generation"]:
            memory.refused, memory.rejected, memory.reports, memory.read_at = {}, {}, {}, {}
            memory.unreadable = await self._stages.unreadable(run, spec)
            memory.generation = metadata["generation"]
        fresh = time.monotonic() - memory.listed_at >= FRESH_SECONDS
        while True:
            if fresh:
                memory.news.clear()
                found = [observation.child(item) for item in await self._threads.call(self._cluster.children, run)]
                listed = {(child.kind, child.name): child for child in found}
                # News that came while the list was on its way is newer than the list.
                told = {key: memory.children[key] for key in memory.news if key in memory.children}
                memory.children = {k: v for k, v in listed.items() if k not in memory.news} | told
                memory.listed_at = time.monotonic()
                memory.keys_gone = await self._stages.keys_are_gone(run, spec, found)
            children = tuple(memory.children.values())
            reports = await self._stages.of_stages(run, spec, before, children, memory)
            missing = await self._stages.missing_secrets(spec, run, before, children)
            for report in reports.values():
                memory.unreadable = (report.error or "") if report.unreadable else ""
            observed = Observed(
                children,
                reports,
                missing,
                dict(memory.refused),
                dict(memory.rejected),
                unreadable=memory.unreadable,
                warning=warning,
                keys_gone=memory.keys_gone,
            )
            made = plan(run, metadata["generation"], spec, before, observed, now)
            if fresh or not _waits(made):
                return made
            fresh = True

    async def _write(self, body: Json | None, before: Status, after: Status) -> tuple[bool, Json | None]:
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
                await self._threads.call(self._cluster.write_status, *place, metadata["resourceVersion"], after.dump())
            except KubeError as error:
                if error.status not in (404, 409):
                    raise
                self._metrics.reconciles.labels("conflict").inc()
                body = await self._threads.call(self._cluster.run, *place)
                continue
            self._metrics.show(*place, after)
            return True, body
        return False, body

    def _announce(self, body: Json, before: Status, after: Status) -> None:
        if before.phase != after.phase:
            self._metrics.transitions.labels(after.phase).inc()
            log.info("%s/%s: %s", body["metadata"]["namespace"], body["metadata"]["name"], after.phase)
        for notice in notices(before, after):
            self._tell(body, notice)

    async def _apply_actions(self, body: Json, made: Plan) -> float | None:
        metadata, again = body["metadata"], False
        memory = self._memory[metadata["uid"]] if made.actions else RunMemory()
        for action in made.actions:
            if isinstance(action, Delete):
                try:
                    await self._threads.call(self._cluster.delete, action.kind, metadata["namespace"], action.name)
                except KubeError as error:
                    if error.status in (0, 401):
                        raise
                    said = f"the API server does not let the {action.kind} {action.name} go: {error.message}"
                    log.warning("%s/%s: %s", metadata["namespace"], metadata["name"], said)
                    known = memory.rejected.get(action.stage) == said
                    memory.rejected[action.stage] = said
                    return WATCH_SECONDS if known else 0.0
                memory.rejected.pop(action.stage, None)
                if child := memory.children.get((action.kind, action.name)):
                    memory.children[action.kind, action.name] = replace(child, deleting=True)
            elif isinstance(action, Apply | MakeKeys):
                try:
                    again = await self._make(metadata["uid"], action) or again
                except KubeError as error:
                    if error.status in (0, 401):
                        raise
                    kind, stage = action.manifest["kind"], action.stage
                    log.warning("%s/%s: %s: %s", metadata["namespace"], metadata["name"], kind, error)
                    if error.status in _WRONG or error.unknown_field:
                        memory.refused[stage] = _refusal(kind, error)
                        return 0.0
                    said = f"the API server does not take the {kind}: {error.message}"
                    # A first refusal is written to the status at once; the next attempt comes in its time.
                    known = memory.rejected.get(stage) is not None
                    memory.rejected[stage] = said
                    return WATCH_SECONDS if known else 0.0
            else:
                await self._threads.call(self._cluster.delete_run, metadata["namespace"], metadata["name"])
        for action in made.actions:
            if isinstance(action, Apply | MakeKeys):
                memory.rejected.pop(action.stage, None)  # everything of that stage was taken
        return 0.0 if again else made.requeue_after

    async def _make(self, uid: str, action: Apply | MakeKeys) -> bool:
        """Applies or creates an object; returns whether the KitRun is to be looked at again at once.

        Raises:
            ApiError: the API server refuses it, or one of that name is another owner's.
        """
        memory = self._memory[uid]
        if isinstance(action, MakeKeys):
            await self._threads.call(self._cluster.create_once, serving_keys.with_a_key(action.manifest))
            memory.keys_gone = False
            return False
        key = (action.manifest["kind"], action.manifest["metadata"]["name"])
        before = memory.children.get(key)
        if before is None and (reason := await self._threads.call(self._cluster.stranger, action.manifest)):
            raise KubeError(409, reason)
        applied = await self._threads.call(self._cluster.apply, action.manifest)
        if memory.children.get(key) is not before:
            return True  # an event came meanwhile, and is newer than the answer
        self.on_child_event(uid, applied, gone=False)
        # One that was there before may be all it shall be: no event of it will come.
        return before is not None


def read_spec(body: Mapping[str, Any]) -> tuple[KitRunSpec, str | None]:
    """The spec of a KitRun, and what of what was applied it does not have.

    An API server that is not asked to be strict drops keys it does not know; what `kubectl apply` was given is looked
    at too, so that a mistyped key is told. It is told only: the live spec may have been mended by other means since.

    Raises:
        OperateError: a key or a value is wrong.
    """
    metadata = body["metadata"]
    spec = parse(body["spec"], metadata["name"])
    applied = (metadata.get("annotations") or {}).get(APPLIED)
    try:
        if applied:
            parse(json.loads(applied).get("spec") or {}, metadata["name"])
    except (OperateError, ValueError, AttributeError) as error:
        return spec, f"what `kubectl apply` was given is not what is followed: {error}"
    return spec, None


def _refusal(kind: str, error: KubeError) -> str:
    """Why an object will never be taken, in words to act on."""
    field = error.unknown_field
    if field is None:
        return f"the API server refuses the {kind}: {error.message}"
    owner = "KubeRay" if kind.startswith("Ray") else "Kubernetes"
    hint = f" (auth: token needs KubeRay {support.KUBERAY_TOKEN})" if "authOptions" in field else ""
    return f"the {kind} kind of this cluster has no field {field}: its {owner} is too old; upgrade it{hint}"


def _waits(made: Plan) -> bool:
    """Whether a plan waits for a child to go, of whose end there may have been no news."""
    stages = [getattr(made.status.stages, stage) for stage in (*STAGES, "serve")]
    return any(one.state == "Waiting" and one.message for one in stages)


def _same(planned: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a plan for `planned` is one for `now`."""
    keys = ("uid", "generation", "deletionTimestamp")
    same = all(planned["metadata"].get(key) == now["metadata"].get(key) for key in keys)
    return same and planned.get("status") == now.get("status")
