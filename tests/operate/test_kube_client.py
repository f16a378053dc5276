"""The client against an API server in memory that drops what it does not know, as one before 1.25 does."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from kit19_ray.operate.kube_client import Cluster, KubeError

Json = dict[str, Any]
JOB: Json = {
    "kind": "RayJob",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"entrypoint": "true", "rayClusterSpec": {"authOptions": {"mode": "token"}, "rayVersion": "2"}},
}


class Older(Cluster):
    """Keeps everything but authOptions."""

    def __init__(self, generation: int = 1, drops: bool = True) -> None:
        super().__init__(None)
        self.generation, self.drops = generation, drops
        self.asked: list[str] = []

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Json:
        self.asked.append(method)
        kept: Json = copy.deepcopy(body) or {}
        if self.drops and body:
            kept["spec"]["rayClusterSpec"].pop("authOptions", None)
        if body:
            kept["metadata"]["generation"] = self.generation
        return kept


@pytest.mark.parametrize("make", ["create", "apply"])
def test_a_protection_that_was_dropped_is_an_error_and_the_open_object_goes(make: str) -> None:
    """C2."""
    server = Older()
    with pytest.raises(KubeError) as caught:
        getattr(server, make)(JOB)
    assert caught.value.unknown_field == ".spec.rayClusterSpec.authOptions"
    assert server.asked[-1] == "DELETE"


def test_an_object_that_was_there_before_is_not_taken_away() -> None:
    server = Older(generation=2)
    with pytest.raises(KubeError, match="authOptions"):
        server.apply(JOB)
    assert server.asked == ["PATCH"]


def test_what_is_kept_whole_is_fine() -> None:
    server = Older(drops=False)
    assert server.apply(JOB)["spec"] == JOB["spec"] and server.asked == ["PATCH"]
