"""kopf's side of the operator: which news wake which KitRun, its finalizer, its Events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import kopf

from kit19_ray.operate.api.crd import GROUP, PLURAL, VERSION
from kit19_ray.operate.controller.conditions import Notice
from kit19_ray.operate.controller.reconciler import APPLIED, Reconciler
from kit19_ray.operate.kube_client import ApiError
from kit19_ray.operate.manifests.naming import RUN_LABEL

log = logging.getLogger(__name__)

RESYNC_SECONDS = 300.0
"""A look without news, in case some were missed."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0  # seconds after the API server failed
_GONE_SECONDS = 20.0


def settings() -> kopf.OperatorSettings:
    """kopf without what it need not do here: no scanning for other resources, no Events of its own log lines."""
    made = kopf.OperatorSettings()
    made.scanning.disabled = True  # needs rights on namespaces and CRDs
    made.posting.enabled = True
    made.posting.loggers = False
    made.posting.reporting_component = "kit19-operator"
    made.persistence.finalizer = f"{GROUP}/operator"
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"operator.{GROUP}")
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"operator.{GROUP}")
    made.watching.server_timeout = 300
    made.watching.client_timeout = 330
    made.watching.connect_timeout = 10
    made.networking.request_timeout = 30
    made.networking.error_backoffs = (0.5, 1, 2, 5)
    made.queueing.error_delays = (1, 2, 5, 10)
    made.background.cancellation_polling = 1
    made.execution.max_workers = 2  # the handlers here are coroutines
    return made


def tell(body: Any, notice: Notice) -> None:
    """Posts an Event about a KitRun."""
    kopf.event(kopf.Body(body), type=notice.type, reason=notice.reason, message=notice.message or notice.reason)


class Wakes:
    """One bell a KitRun, rung by news of it and of its children."""

    def __init__(self) -> None:
        self._bells: dict[tuple[str, str], asyncio.Event] = {}
        self._seen: dict[str, tuple[Any, ...]] = {}

    def bell(self, namespace: str, name: str) -> asyncio.Event:
        """The bell of a run."""
        return self._bells.setdefault((namespace, name), asyncio.Event())

    def ring(self, namespace: str, name: str) -> None:
        """Wakes whoever follows a run."""
        self.bell(namespace, name).set()

    def new(self, meta: Mapping[str, Any]) -> bool:
        """Whether a KitRun was made, edited or deleted; the operator's own writes of its status are no news."""
        seen = (meta.get("generation"), meta.get("deletionTimestamp"), dict(meta.get("annotations", {})).get(APPLIED))
        changed = self._seen.get(meta["uid"]) != seen
        self._seen[meta["uid"]] = seen
        return changed

    def forget(self, namespace: str, name: str, uid: str) -> None:
        """Takes the bell of a run away."""
        self._bells.pop((namespace, name), None)
        self._seen.pop(uid, None)


def register(registry: kopf.OperatorRegistry, reconciler: Reconciler) -> None:
    """The handlers, in `registry`."""
    wakes = Wakes()

    @kopf.on.login(registry=registry)
    def login(**values: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**values) or kopf.login_with_kubeconfig(**values)

    @kopf.daemon(GROUP, VERSION, PLURAL, registry=registry, cancellation_timeout=1.0)
    async def follow(namespace: Any, name: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
        """Looks at a KitRun whenever there is news, or when the last look said so."""
        bell, retry = wakes.bell(namespace, name), _FIRST_RETRY
        while not stopped:
            bell.clear()
            try:
                after = await reconciler.look(namespace, name)
                retry = _FIRST_RETRY
            except ApiError as error:
                log.warning("%s/%s: %s; again in %g s", namespace, name, error, retry)
                after, retry = retry, min(_LAST_RETRY, 2 * retry)
                await stopped.wait(min(after, 1.0))  # not at once, whatever the news
            await _heard(bell, stopped, RESYNC_SECONDS if after is None else min(after, RESYNC_SECONDS))

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def run_news(namespace: Any, name: str, meta: Mapping[str, Any], **_: Any) -> None:
        if wakes.new(meta):
            wakes.ring(namespace, name)

    @kopf.on.event("ray.io", "v1", "rayjobs", registry=registry, labels={RUN_LABEL: kopf.PRESENT})
    @kopf.on.event("ray.io", "v1", "rayservices", registry=registry, labels={RUN_LABEL: kopf.PRESENT})
    @kopf.on.event("networking.k8s.io", "v1", "ingresses", registry=registry, labels={RUN_LABEL: kopf.PRESENT})
    async def child_news(namespace: Any, meta: Mapping[str, Any], type: str | None, body: Any, **_: Any) -> None:
        for owner in meta.get("ownerReferences", []):
            if reconciler.heard(owner["uid"], body, gone=type == "DELETED"):
                wakes.ring(namespace, owner["name"])

    @kopf.on.delete(GROUP, VERSION, PLURAL, registry=registry)
    async def leave(namespace: Any, name: str, uid: str, **_rest: Any) -> None:
        """Waits until the children are gone, then lets the KitRun go; what they wrote stays."""
        for _round in range(4):
            if await reconciler.children_gone(namespace, name, uid):
                wakes.forget(namespace, name, uid)
                return
            for _ in range(int(_GONE_SECONDS / 4 / 0.1)):
                await asyncio.sleep(0.1)
                if reconciler.childless(uid):
                    break
        raise kopf.TemporaryError("its children are not gone yet; is KubeRay's operator running?", delay=5)


async def _heard(bell: asyncio.Event, stopped: kopf.DaemonStopped, seconds: float) -> None:
    """Returns when the bell rings, when the operator or the KitRun ends, or after `seconds`."""
    waiting = [asyncio.ensure_future(bell.wait()), asyncio.ensure_future(_ended(stopped))]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def _ended(stopped: kopf.DaemonStopped) -> None:
    await stopped.wait()
