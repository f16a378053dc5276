"""kopf's side of the operator: which events trigger which KitRun, its Events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import kopf

from kit19_ray.operate.api.crd import GROUP, PLURAL, VERSION
from kit19_ray.operate.controller.conditions import Notice
from kit19_ray.operate.controller.reconciler import APPLIED, Reconciler
from kit19_ray.operate.kube_client import KubeError
from kit19_ray.operate.manifests.naming import RUN_LABEL

log = logging.getLogger(__name__)

RESYNC_SECONDS = 300.0
"""A look without news, in case some were missed."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 60.0  # seconds after the API server failed


def settings() -> kopf.OperatorSettings:
    """kopf without what it need not do here: no scanning for other resources, no Events of its own log lines."""
    made = kopf.OperatorSettings()
    made.scanning.disabled = True  # needs rights on namespaces and CRDs
    made.posting.enabled = True
    made.posting.loggers = False
    made.posting.reporting_component = "kit19-operator"
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"operator.{GROUP}")
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"operator.{GROUP}")
    made.watching.server_timeout = 300
    made.watching.client_timeout = 330
    made.watching.connect_timeout = 10
    made.networking.request_timeout = 30
    made.networking.error_backoffs = (0.5, 1, 2, 5)
    made.queueing.error_delays = (1, 2, 5, 10)
    made.execution.max_workers = 2  # the handlers here are coroutines
    return made


def tell(body: Any, notice: Notice) -> None:
    """Posts an Event about a KitRun."""
    kopf.event(kopf.Body(body), type=notice.type, reason=notice.reason, message=notice.message or notice.reason)


class Triggers:
    """A task a KitRun, which reconciles it whenever it is notified, or when the last reconciliation said so.

    They are not kopf's daemons: those put a finalizer on every KitRun, which nobody takes off once the operator is
    gone.
    """

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self._events: dict[tuple[str, str], asyncio.Event] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._seen: dict[str, tuple[Any, ...]] = {}

    def notify(self, namespace: str, name: str) -> None:
        """Has a KitRun reconciled soon."""
        self._events.setdefault((namespace, name), asyncio.Event()).set()

    def take(self, namespace: str, name: str, meta: Mapping[str, Any]) -> None:
        """Takes in a KitRun that was made, edited or is being deleted; the operator's own writes of its status are no
        news.
        """
        seen = (meta.get("generation"), meta.get("deletionTimestamp"), dict(meta.get("annotations", {})).get(APPLIED))
        if self._seen.get(meta["uid"]) == seen:
            return
        self._seen[meta["uid"]] = seen
        self.notify(namespace, name)
        if (namespace, name) not in self._tasks:
            self._tasks[namespace, name] = asyncio.create_task(self._follow(namespace, name))

    def drop(self, namespace: str, name: str, uid: str) -> None:
        """Lets go of a KitRun that is gone; the events of another one of its name come later."""
        self._seen.pop(uid, None)
        self._reconciler.forget(namespace, name, uid)
        if task := self._tasks.pop((namespace, name), None):
            task.cancel()
        self._events.pop((namespace, name), None)

    async def close(self) -> None:
        """Ends every task."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _follow(self, namespace: str, name: str) -> None:
        event, retry = self._events[namespace, name], _FIRST_RETRY
        while True:
            event.clear()
            try:
                requeue_after, retry = await self._reconciler.reconcile(namespace, name), _FIRST_RETRY
            except KubeError as error:
                log.warning("%s/%s: %s; again in %g s", namespace, name, error, retry)
                requeue_after, retry = retry, min(_LAST_RETRY, 2 * retry)
                await asyncio.sleep(min(requeue_after, 1.0))  # not at once, whatever the events
            except Exception:
                log.exception("%s/%s: a fault of the operator's; again in %g s", namespace, name, _LAST_RETRY)
                requeue_after = _LAST_RETRY
                await asyncio.sleep(1.0)
            seconds = RESYNC_SECONDS if requeue_after is None else min(requeue_after, RESYNC_SECONDS)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(event.wait(), seconds)


def register(registry: kopf.OperatorRegistry, reconciler: Reconciler) -> Triggers:
    """The handlers, in `registry`."""
    triggers = Triggers(reconciler)

    @kopf.on.login(registry=registry)
    def login(**values: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**values) or kopf.login_with_kubeconfig(**values)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def run_event(
        namespace: Any, name: str, uid: str, meta: Mapping[str, Any], type: str | None, **_: Any
    ) -> None:
        if type == "DELETED":
            triggers.drop(namespace, name, uid)
        else:
            triggers.take(namespace, name, meta)

    @kopf.on.event("ray.io", "v1", "rayjobs", registry=registry, labels={RUN_LABEL: kopf.PRESENT})
    @kopf.on.event("ray.io", "v1", "rayservices", registry=registry, labels={RUN_LABEL: kopf.PRESENT})
    @kopf.on.event("networking.k8s.io", "v1", "ingresses", registry=registry, labels={RUN_LABEL: kopf.PRESENT})
    @kopf.on.event("networking.k8s.io", "v1", "networkpolicies", registry=registry, labels={RUN_LABEL: kopf.PRESENT})
    async def child_event(namespace: Any, meta: Mapping[str, Any], type: str | None, body: Any, **_: Any) -> None:
        for owner in meta.get("ownerReferences", []):
            if reconciler.on_child_event(owner["uid"], body, gone=type == "DELETED"):
                triggers.notify(namespace, owner["name"])

    return triggers
