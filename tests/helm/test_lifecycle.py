"""install, upgrade, rollback, test and uninstall of both charts against a real API server.

There is no kubelet, so no Pod runs: nothing waits for readiness, and for `helm test` a stand-in writes the status a
kubelet would write when the Pod has ended. What those Pods would run is tested where the templates are.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.helm.rendering import REPO, Helm, Json
from tests.operate.control_plane import ControlPlane

pytestmark = pytest.mark.kube
# The CRD may be there from kubectl or another release.
ADOPT = ("--take-ownership", "--force-conflicts")
CONFIG: Json = {"root": "s3://bucket/kit19"}


class Place:
    """A namespace and what is in it."""

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self.plane = plane
        self.name = name
        listed = plane.kubectl("api-resources", "--namespaced", "--verbs=list,delete", "-o", "name").stdout.split()
        self.kinds = ",".join(sorted(set(listed) - {"events", "events.events.k8s.io"}))

    def get(self, *words: str) -> Json:
        """One object."""
        found: Json = json.loads(self.plane.kubectl("get", "-n", self.name, *words, "-o", "json").stdout)
        return found

    def names(self, kind: str) -> list[str]:
        """Names of the objects of a kind."""
        return sorted(one["metadata"]["name"] for one in self.get(kind)["items"])

    def objects(self) -> set[str]:
        """Everything in it but what Kubernetes puts into every namespace."""
        found = self.plane.kubectl("get", "-n", self.name, self.kinds, "-o", "name").stdout.split()
        ours = {name for name in found if "/default-token-" not in name}
        return ours - {"serviceaccount/default", "configmap/kube-root-ca.crt"}

    def empty(self, seconds: float = 180) -> bool:
        """Whether the garbage collector clears it in time."""
        limit = time.monotonic() + seconds
        while self.objects() and time.monotonic() < limit:
            time.sleep(0.5)
        return not self.objects()


@pytest.fixture
def place(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Place]:
    """An empty namespace."""
    name = request.node.name.replace("_", "-")[:40].rstrip("-")
    control_plane.kubectl("create", "namespace", name)
    yield Place(control_plane, name)
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def kubelet_for_tests(place: Place, phase: str = "Succeeded") -> Iterator[list[str]]:
    """Writes `phase` into the status of each `helm test` Pod, as a kubelet does when it has ended."""
    stop, seen = threading.Event(), []
    patch = json.dumps({"status": {"phase": phase}})

    def work() -> None:
        while not stop.wait(0.2):
            for pod in place.get("pods")["items"]:
                metadata = pod["metadata"]
                if metadata.get("annotations", {}).get("helm.sh/hook") == "test" and metadata["uid"] not in seen:
                    done = place.plane.kubectl(
                        "patch", "-n", place.name, f"pod/{metadata['name']}", "--subresource=status", "--type=merge",
                        "-p", patch, check=False,
                    )  # fmt: skip
                    if done.returncode == 0:
                        seen.append(metadata["uid"])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_operator_chart(cluster_helm: Helm, place: Place) -> None:
    chart, where = "helm/kit19-operator", ("--namespace", place.name)
    cluster_helm("install", "op", chart, *where, *ADOPT)
    assert place.get("deployment/op")["spec"]["replicas"] == 1
    limit = time.monotonic() + 30
    while not place.get("pods")["items"] and time.monotonic() < limit:
        time.sleep(0.2)
    (pod,) = place.get("pods")["items"]  # the controller made it and admission took it
    assert pod["status"]["phase"] == "Pending" and pod["spec"]["serviceAccountName"] == "op"

    with kubelet_for_tests(place) as seen:
        said = cluster_helm("test", "op", *where, "--timeout", "180s").stdout
    assert len(seen) == 1 and "Succeeded" in said

    cluster_helm("upgrade", "op", chart, *where, "--set", "replicas=2", "--set", "dashboards.enabled=true")
    assert place.get("deployment/op")["spec"]["replicas"] == 2 and "op-dashboards" in place.names("configmaps")
    cluster_helm("rollback", "op", "1", *where)
    assert place.get("deployment/op")["spec"]["replicas"] == 1 and "op-dashboards" not in place.names("configmaps")

    done = cluster_helm("upgrade", "op", chart, *where, "--set", "replica=3", check=False)
    assert done.returncode != 0 and "replica" in done.stderr
    assert place.get("deployment/op")["spec"]["replicas"] == 1

    cluster_helm("uninstall", "op", *where)
    assert place.empty(), place.objects()
    left = place.plane.kubectl("get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/instance=op").stdout
    assert left == ""
    assert "kitruns.kit19.dev" in place.plane.kubectl("get", "crd", "-o", "name").stdout


def test_an_upgrade_brings_the_new_crd(cluster_helm: Helm, place: Place, tmp_path: Path) -> None:
    where = ("--namespace", place.name)
    newer = tmp_path / "kit19-operator"
    shutil.copytree(REPO / "helm/kit19-operator", newer)
    file = newer / "files/crd.yaml"
    made = yaml.safe_load(file.read_text())
    columns = made["spec"]["versions"][0]["additionalPrinterColumns"]
    columns.append({"name": "Seed", "type": "integer", "jsonPath": ".spec.config.seed"})
    file.write_text(yaml.safe_dump(made, sort_keys=False))

    def names() -> list[str]:
        found = json.loads(place.plane.kubectl("get", "crd/kitruns.kit19.dev", "-o", "json").stdout)
        return [column["name"] for column in found["spec"]["versions"][0]["additionalPrinterColumns"]]

    cluster_helm("install", "op", "helm/kit19-operator", *where, *ADOPT)
    assert "Seed" not in names()
    cluster_helm("upgrade", "op", str(newer), *where)
    assert "Seed" in names()
    cluster_helm("rollback", "op", "1", *where)
    assert "Seed" not in names()
    cluster_helm("uninstall", "op", *where)
    assert place.empty(), place.objects()


def test_operator_cluster_wide(cluster_helm: Helm, place: Place) -> None:
    where = ("--namespace", place.name)
    cluster_helm("install", "wide", "helm/kit19-operator", *where, "--set", "clusterWide=true", *ADOPT)
    account = f"system:serviceaccount:{place.name}:wide"

    def may(*words: str) -> str:
        return place.plane.kubectl("auth", "can-i", *words, "--as", account, check=False).stdout.strip()

    assert may("create", "rayjobs.ray.io", "-n", "default") == "yes"
    assert may("patch", "kitruns.kit19.dev", "--subresource=status", "-n", "default") == "yes"
    assert may("update", "leases.coordination.k8s.io", "-n", place.name) == "yes"
    for words in (
        ("update", "leases.coordination.k8s.io", "-n", "default"),
        ("list", "secrets", "-n", "default"),
        ("create", "pods", "-n", "default"),
        ("create", "clusterroles"),
    ):
        assert may(*words) == "no", words
    cluster_helm("uninstall", "wide", *where)
    assert place.empty(), place.objects()
    assert may("create", "rayjobs.ray.io", "-n", "default") == "no"


def test_run_chart(cluster_helm: Helm, place: Place) -> None:
    chart, where = "helm/kit19-run", ("--namespace", place.name)
    cluster_helm("install", "run", chart, *where, "--values", cluster_helm.values({"config": CONFIG}))
    (first,) = place.names("rayjobs")
    token = place.get("secret/run-token")["data"]["auth_token"]

    with kubelet_for_tests(place) as seen:
        cluster_helm("test", "run", *where, "--timeout", "180s")
    assert len(seen) == 1
    with kubelet_for_tests(place, "Failed"):
        done = cluster_helm("test", "run", *where, "--timeout", "180s", check=False)
    assert done.returncode != 0
    place.plane.kubectl("delete", "pod", "-n", place.name, "-l", "app.kubernetes.io/component=test")

    cluster_helm("upgrade", "run", chart, *where, "--reuse-values", "--set", "job.suspend=true")
    assert place.names("rayjobs") == [first] and place.get(f"rayjob/{first}")["spec"]["suspend"] is True
    cluster_helm("upgrade", "run", chart, *where, "--reuse-values", "--set", "config.seed=20")
    (second,) = place.names("rayjobs")
    assert second != first
    cluster_helm("rollback", "run", "1", *where)
    assert place.names("rayjobs") == [first]
    assert place.get("secret/run-token")["data"]["auth_token"] == token

    serve = [
        "--set",
        "mode=none",
        "--set",
        "serve.enabled=true",
        "--set",
        "config.serve.model=s3://bucket/kit19/train-0",
    ]
    cluster_helm("upgrade", "run", chart, *where, "--reuse-values", *serve)
    assert place.names("rayjobs") == [] and place.names("rayservices") == ["run"]

    done = cluster_helm(
        "upgrade", "run", chart, *where, "--reuse-values", "--set", "config.trian.workers=2", check=False
    )
    assert done.returncode != 0 and "trian" in done.stderr and place.names("rayservices") == ["run"]

    cluster_helm("uninstall", "run", *where)
    assert place.empty(), place.objects()


def test_run_chart_cluster(cluster_helm: Helm, place: Place) -> None:
    where = ("--namespace", place.name)
    values = str(REPO / "helm/kit19-run/ci/cluster.yaml")
    cluster_helm("install", "dev", "helm/kit19-run", *where, "--values", values)
    cluster = place.get("raycluster/dev")["spec"]
    assert cluster["workerGroupSpecs"][0]["replicas"] == 2
    assert cluster["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    cluster_helm("upgrade", "dev", "helm/kit19-run", *where, "--values", values, "--set", "pods.workers=0")
    assert "workerGroupSpecs" not in place.get("raycluster/dev")["spec"]
    cluster_helm("uninstall", "dev", *where)
    assert place.empty(), place.objects()
