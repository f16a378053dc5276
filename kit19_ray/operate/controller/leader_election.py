"""One operator works at a time: whoever holds the Lease. As client-go does it, with its times.

The holder renews every 2 seconds and gives up its work when it could not for 10; another takes the lease over when it
was not renewed for 15 seconds, or at once when the holder let go of it. An operator that is killed and started again
under the same identity (a container of the same pod) goes on at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Any

from kit19_ray.operate.kube_client import Cluster, KubeError
from kit19_ray.utils.json_types import Json

log = logging.getLogger(__name__)

NAME = "kit19-operator"
"""Of the Lease, where none is given; a chart gives its release's, so that several work side by side."""
DURATION_SECONDS, RENEW_SECONDS, GIVE_UP_SECONDS = 15, 2.0, 10.0


class LeaderLease:
    """A claim to the lease.

    Args:
        namespace: where the lease is.
        identity: who asks; unique among operators that run at the same time.
        name: of the Lease.
        seconds: of silence after which it is another's to take; None means 15.

    Attributes:
        holder: who holds it, as last seen; None when that is not known.
    """

    def __init__(
        self, cluster: Cluster, namespace: str, identity: str, name: str = NAME, seconds: int | None = None
    ) -> None:
        self._cluster, self._namespace, self._identity, self.name = cluster, namespace, identity, name
        self._seconds = seconds
        self.holder: str | None = None
        self._seen: tuple[Any, float] | None = None

    async def acquire(self) -> None:
        """Returns when the lease is held."""
        told = False
        while True:
            try:
                if await asyncio.to_thread(self.take):
                    log.info("%s holds the lease %s/%s", self._identity, self._namespace, self.name)
                    return
                if not told:
                    log.info("another operator holds the lease %s/%s; waiting", self._namespace, self.name)
                    told = True
            except KubeError as error:
                self.holder = None
                if error.status in (401, 403):
                    raise
                log.warning("the lease cannot be taken: %s", error)
            await asyncio.sleep(RENEW_SECONDS)

    async def keep(self) -> None:
        """Renews the lease; returns when it is lost."""
        # GIVE_UP is below DURATION: a holder that cannot reach the API server stops work before anybody else may take
        # the lease, so that two never act at once.
        renewed = time.monotonic()
        while time.monotonic() - renewed < GIVE_UP_SECONDS:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if not await asyncio.to_thread(self.take):
                    break
                renewed = time.monotonic()
            except KubeError as error:
                log.warning("the lease cannot be renewed: %s", error)
        log.error("the lease is lost")

    async def release(self) -> None:
        """Lets go, so that another operator need not wait."""
        found = await asyncio.to_thread(self._cluster.lease, self._namespace, self.name)
        if found is not None and found["spec"].get("holderIdentity") == self._identity:
            # An empty holder with one second is what client-go writes: others take it at once.
            found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
            await asyncio.to_thread(self._cluster.write_lease, found, False)

    def take(self) -> bool:
        """Takes or renews the lease; False while it is another's.

        Raises:
            ApiError: the API server refuses, or cannot be reached.
        """
        found = self._cluster.lease(self._namespace, self.name)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._seconds or DURATION_SECONDS,
            "renewTime": now,
        }
        if found is None:
            metadata = {"name": self.name, "namespace": self._namespace}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            return self._write(lease | {"spec": spec | {"acquireTime": now, "leaseTransitions": 0}}, new=True)
        held = found["spec"]
        self.holder = held.get("holderIdentity") or None
        mine = held.get("holderIdentity") == self._identity
        # Our own identity is renewed without waiting: a container that was killed comes back under its pod's name.
        if not mine and held.get("holderIdentity") and not self._expired(held):
            return False
        if not mine:
            spec |= {"acquireTime": now, "leaseTransitions": int(held.get("leaseTransitions") or 0) + 1}
        # `found` carries its resourceVersion: of two who take it in the same moment the API server refuses one.
        return self._write(found | {"spec": {**held, **spec}}, new=False)

    def _expired(self, held: Json) -> bool:
        """Whether the holder has been silent for its duration, by this machine's clock: clocks differ."""
        record = (held.get("holderIdentity"), held.get("renewTime"))
        if self._seen is None or self._seen[0] != record:
            self._seen = (record, time.monotonic())
        return time.monotonic() - self._seen[1] > float(
            held.get("leaseDurationSeconds") or self._seconds or DURATION_SECONDS
        )

    def _write(self, lease: Json, new: bool) -> bool:
        try:
            self._cluster.write_lease(lease, new)
        except KubeError as error:
            if error.status == 409:
                return False  # another was faster
            raise
        self.holder = self._identity
        return True
