"""The charts of the version before tokens, policies and keys, upgraded to this one's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helm.rendering import Helm
from tests.operate import harness
from tests.operate.control_plane import ControlPlane

pytestmark = pytest.mark.kube


def test_the_charts_of_the_version_before_are_upgraded(
    cluster_helm: Helm, operated_plane: ControlPlane, before: Path
) -> None:
    def get(kind: str, place: str) -> list[dict[str, Any]]:
        found = operated_plane.kubectl("get", kind, "-n", place, "-o", "json").stdout
        return list(json.loads(found)["items"])

    with harness.namespace(operated_plane) as place:
        where, adopt = ("--namespace", place), ("--take-ownership", "--force-conflicts")
        cluster_helm("install", "op", str(before / "helm/kit19-operator"), *where, *adopt)
        assert "configmaps" in str(get("roles", place))
        cluster_helm("upgrade", "op", "helm/kit19-operator", *where, "--reset-then-reuse-values", *adopt)
        assert "configmaps" not in str(get("roles", place)) and "networkpolicies" in str(get("roles", place))
        (deployment,) = get("deployments", place)
        assert "--lease-name" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        values = cluster_helm.values(
            {
                "mode": "none",
                "config": {"root": "s3://bucket/r", "serve": {"model": "s3://bucket/m"}},
                "serve": {"enabled": True},
            }
        )
        cluster_helm("install", "run", str(before / "helm/kit19-run"), *where, "--values", values)
        tokens = {one["metadata"]["name"]: one["data"] for one in get("secrets", place) if one["type"] == "Opaque"}
        (service,) = get("rayservices", place)
        cluster_helm("upgrade", "run", "helm/kit19-run", *where, "--reset-then-reuse-values")
        held = {one["metadata"]["name"]: one["data"] for one in get("secrets", place) if one["type"] == "Opaque"}
        assert tokens.items() <= held.items() and set(held) - set(tokens) == {"run-keys"}
        assert get("rayservices", place)[0]["metadata"]["uid"] == service["metadata"]["uid"]
        cluster_helm("upgrade", "run", "helm/kit19-run", *where, "--reset-then-reuse-values")
        again = {one["metadata"]["name"]: one["data"] for one in get("secrets", place) if one["type"] == "Opaque"}
        assert again == held  # neither token nor keys are made anew
        for release in ("run", "op"):
            cluster_helm("uninstall", release, *where)
    harness.install_crd(operated_plane)
