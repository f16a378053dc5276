"""Two releases that watch one namespace: the first one works, the second says so and waits."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from kit19_ray.operate.controller import claims as module
from kit19_ray.operate.controller import leader_election
from kit19_ray.operate.controller.claims import Claims
from kit19_ray.operate.kube_client import KubeError

Json = dict[str, Any]


class Leases:
    """The API server's Leases, in memory."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Json] = {}
        self.refusal: KubeError | None = None
        self.writes, self.conflict = 0, False

    def lease(self, namespace: str, name: str) -> Json | None:
        if self.refusal:
            raise self.refusal
        return copy.deepcopy(self.held.get((namespace, name)))

    def write_lease(self, lease: Json, new: bool) -> Json:
        key = lease["metadata"]["namespace"], lease["metadata"]["name"]
        self.writes += 1
        if self.conflict or (new and key in self.held):
            raise KubeError(409, "exists")
        self.held[key] = copy.deepcopy(lease)
        return lease


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Leases:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.0)
    return Leases()


def other(claims: Claims, namespace: str = "team") -> str | None:
    return asyncio.run(claims.other(namespace))


def test_the_second_release_leaves_the_namespace_to_the_first(server: Leases, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Claims(server, "a/kit19"), Claims(server, "b/kit19")  # type: ignore[arg-type]
    assert other(first) is None
    assert other(second) == "a/kit19" and other(second) == "a/kit19"
    assert other(second, "elsewhere") is None and other(first, "elsewhere") == "b/kit19"
    assert caplog.text.count("team: release a/kit19 works here already; its KitRuns are left alone") == 1


def test_a_hundred_runs_of_a_namespace_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim is written once, by the first; none of them takes its own release for another."""
    server = Leases()
    claims, other_release = Claims(server, "a/kit19"), Claims(server, "b/kit19")  # type: ignore[arg-type]

    async def story() -> set[str | None]:
        return set(await asyncio.gather(*(claims.other("team") for _ in range(100))))

    assert asyncio.run(story()) == {None} and server.writes == 1
    assert other(other_release) == "a/kit19"


def test_another_replica_that_was_faster_is_no_other_release(server: Leases) -> None:
    claims = Claims(server, "a/kit19")  # type: ignore[arg-type]
    assert other(claims) is None
    server.conflict = True
    assert other(claims) is None


def test_replicas_and_upgrades_of_one_release_are_one(server: Leases) -> None:
    assert other(Claims(server, "a/kit19")) is None  # type: ignore[arg-type]
    assert other(Claims(server, "a/kit19")) is None  # type: ignore[arg-type]


def test_a_release_that_is_gone_loses_its_namespaces(server: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(leader_election.time, "monotonic", lambda: now[0])
    first, second = Claims(server, "a/kit19"), Claims(server, "b/kit19")  # type: ignore[arg-type]
    assert other(first) is None and other(second) == "a/kit19"
    now[0] += module.SECONDS - 1
    assert other(second) == "a/kit19"
    now[0] += 2
    assert other(second) is None and other(first) == "b/kit19"


@pytest.mark.parametrize("status", [0, 403, 404, 500])
def test_where_it_cannot_be_told_the_work_goes_on(server: Leases, status: int) -> None:
    """Roles of an earlier version have no right to it; a namespace may be going."""
    server.refusal = KubeError(status, "leases is forbidden")
    assert other(Claims(server, "a/kit19")) is None  # type: ignore[arg-type]


def test_what_was_known_stays_while_the_api_server_is_away(server: Leases) -> None:
    first, second = Claims(server, "a/kit19"), Claims(server, "b/kit19")  # type: ignore[arg-type]
    assert other(first) is None and other(second) == "a/kit19"
    server.refusal = KubeError(0, "the API server cannot be reached")
    assert other(second) == "a/kit19" and other(first) is None
