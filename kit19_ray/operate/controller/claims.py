"""One release works in a namespace: it holds a Lease there, beside the one by which its own replicas take turns.

Two releases that watch one namespace would otherwise both carry out its KitRuns, each undoing what the other's version
makes differently. The second one leaves them alone, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import time

from kit19_ray.operate.api.rbac import NAMESPACE_LEASE
from kit19_ray.operate.controller.leader_election import LeaderLease
from kit19_ray.operate.kube_client import Cluster, KubeError

log = logging.getLogger(__name__)

SECONDS, RENEW_SECONDS = 60, 20.0
"""After how long a silent release loses its namespaces, and how often they are claimed anew."""


class Claims:
    """The namespaces of one release.

    Args:
        release: who claims: `<namespace>/<name>` of the release's own Lease, which its replicas share.
    """

    def __init__(self, cluster: Cluster, release: str) -> None:
        self._cluster, self._release = cluster, release
        self._leases: dict[str, LeaderLease] = {}
        self._looked: dict[str, float] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._others: dict[str, str | None] = {}

    async def other(self, namespace: str) -> str | None:
        """The release that works in a namespace already; None where it is ours to work in."""
        async with self._locks.setdefault(namespace, asyncio.Lock()):  # all runs of a namespace ask at once
            if time.monotonic() - self._looked.get(namespace, -RENEW_SECONDS) >= RENEW_SECONDS:
                await self._look(namespace)
        return self._others.get(namespace)

    async def keep(self) -> None:
        """Claims every namespace anew, for ever."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            for namespace in list(self._leases):
                await self.other(namespace)

    async def _look(self, namespace: str) -> None:
        lease = self._leases.setdefault(
            namespace, LeaderLease(self._cluster, namespace, self._release, NAMESPACE_LEASE, SECONDS)
        )
        self._looked[namespace], before = time.monotonic(), self._others.get(namespace)
        try:
            mine = await asyncio.to_thread(lease.take)
        except KubeError as error:
            log.info("%s: it cannot be told whether another release works here: %s", namespace, error)
            if error.status in (403, 404):
                # A namespace that goes, rights of an earlier version: nobody can be told apart, and the work goes on.
                self._leases.pop(namespace)
                self._others.pop(namespace, None)
            return
        # Another replica of this release may have been faster: it writes the same.
        other = None if mine or lease.holder == self._release else lease.holder or "another release"
        self._others[namespace] = other
        if other is not None and before is None:
            log.warning("%s: release %s works here already; its KitRuns are left alone", namespace, other)
