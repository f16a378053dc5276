"""The lease: one holder, renewed, taken over when it was not, let go of in the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit19_ray.operate.controller import leader_election as module
from kit19_ray.operate.controller.leader_election import LeaderLease
from kit19_ray.operate.kube_client import KubeError


class Store:
    """A Lease in memory, with the API server's optimistic locking."""

    def __init__(self) -> None:
        self.found: dict[str, Any] | None = None
        self.version = 0
        self.down = False

    def lease(self, namespace: str, name: str) -> dict[str, Any] | None:
        if self.down:
            raise KubeError(0, "down")
        return None if self.found is None else {**self.found, "spec": dict(self.found["spec"])}

    def write_lease(self, lease: dict[str, Any], new: bool) -> dict[str, Any]:
        if self.down:
            raise KubeError(0, "down")
        if (new and self.found is not None) or (
            not new and lease["metadata"].get("resourceVersion") != str(self.version)
        ):
            raise KubeError(409, "conflict")
        self.version += 1
        self.found = {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(self.version)}}
        return self.found


def claim(store: Any, identity: str) -> LeaderLease:
    return LeaderLease(store, "default", identity)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(module, "GIVE_UP_SECONDS", 0.1)
    monkeypatch.setattr(module, "DURATION_SECONDS", 1)


def test_a_second_operator_waits_until_the_first_lets_go() -> None:
    async def story() -> None:
        store = Store()
        first, second = claim(store, "first"), claim(store, "second")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await first.release()
        await asyncio.wait_for(waiting, 2)
        assert store.found is not None and store.found["spec"]["holderIdentity"] == "second"
        assert store.found["spec"]["leaseTransitions"] == 1

    asyncio.run(story())


def test_a_holder_that_is_silent_is_replaced_and_its_old_self_goes_on_at_once() -> None:
    async def story() -> None:
        store = Store()
        await claim(store, "first").acquire()
        await asyncio.wait_for(claim(store, "first").acquire(), 0.5)  # the same pod, started again
        second = claim(store, "second")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(second.acquire(), 0.5)
        await asyncio.wait_for(second.acquire(), 2)

    asyncio.run(story())


def test_a_holder_that_cannot_renew_gives_up() -> None:
    async def story() -> None:
        store = Store()
        first = claim(store, "first")
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        await asyncio.sleep(0.05)
        assert not keeping.done()
        store.down = True
        await asyncio.wait_for(keeping, 2)

    asyncio.run(story())


def test_a_holder_whose_lease_is_another_s_gives_up() -> None:
    async def story() -> None:
        store = Store()
        first = claim(store, "first")
        await first.acquire()
        assert store.found is not None
        store.found["spec"]["holderIdentity"] = "second"
        await asyncio.wait_for(first.keep(), 2)

    asyncio.run(story())


def test_a_refusal_is_not_waited_out() -> None:
    class Forbidding(Store):
        def lease(self, namespace: str, name: str) -> dict[str, Any] | None:
            raise KubeError(403, "leases is forbidden")

    with pytest.raises(KubeError, match="403: leases is forbidden"):
        asyncio.run(claim(Forbidding(), "first").acquire())


def test_leases_of_other_names_are_held_side_by_side_and_a_standby_knows_who_works() -> None:
    """B4: the chart's lease has its release's name."""

    class Named:
        def __init__(self) -> None:
            self.stores: dict[str, Store] = {}

        def lease(self, namespace: str, name: str) -> dict[str, Any] | None:
            return self.stores.setdefault(name, Store()).lease(namespace, name)

        def write_lease(self, lease: dict[str, Any], new: bool) -> dict[str, Any]:
            return self.stores[lease["metadata"]["name"]].write_lease(lease, new)

    async def story() -> None:
        server: Any = Named()
        first, second = (LeaderLease(server, "ops", name, name) for name in ("a", "b"))
        await asyncio.wait_for(asyncio.gather(first.acquire(), second.acquire()), 2)
        assert (first.holder, second.holder) == ("a", "b")
        standby = LeaderLease(server, "ops", "c", "a")
        waiting = asyncio.create_task(standby.acquire())
        await asyncio.sleep(0.1)
        assert standby.holder == "a" and not waiting.done()
        waiting.cancel()

    asyncio.run(story())
