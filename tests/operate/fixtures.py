"""A namespace and an operator process for the tests against the API server."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit19_ray.operate.kube_client import Cluster
from tests.operate import harness, kubelet
from tests.operate.control_plane import REPO, ControlPlane
from tests.operate.drills import Drill
from tests.operate.harness import OperatorProcess, write_scores
from tests.operate.kubelet import Kubelet
from tests.operate.kuberay import Script, Scripted

BEFORE = "dc76880"
"""The version before tokens, policies and keys were the default, from which upgrades are tested."""


@pytest.fixture(scope="session")
def operated_plane(control_plane: ControlPlane) -> ControlPlane:
    """The API server with the KitRun CRD."""
    harness.install(control_plane)
    return control_plane


@pytest.fixture(scope="session")
def admin(operated_plane: ControlPlane) -> Cluster:
    """The API server with an administrator's rights."""
    return harness.admin(operated_plane)


@pytest.fixture
def place(operated_plane: ControlPlane) -> Iterator[str]:
    """A namespace in which the operator has its rights."""
    with harness.namespace(operated_plane) as name:
        harness.grant(operated_plane, name)
        yield name


@pytest.fixture
def operator(operated_plane: ControlPlane, place: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, at work in `place`."""
    process = OperatorProcess(operated_plane, place, tmp_path).start()
    try:
        yield process
    finally:
        process.kill()
        sys.stderr.write(process.log.read_text()[-4000:])


@pytest.fixture
def node(operated_plane: ControlPlane, admin: Cluster) -> Iterator[Kubelet]:
    """A kubelet of which the API server gets the logs of pods."""
    if operated_plane.folder is None:
        pytest.skip("a cluster with nodes of its own has kubelets of its own")
    with kubelet.running(admin, "loopback") as made:
        yield made


@pytest.fixture
def drill(operated_plane: ControlPlane, admin: Cluster, place: str, tmp_path: Path) -> Iterator[Drill]:
    """A namespace in which KubeRay's stand-in works, and every stage leaves scores that pass the gate."""
    with Scripted(admin, place, Script(done=write_scores(tmp_path, 0.75))) as kuberay:
        yield Drill(operated_plane, admin, place, tmp_path, kuberay)


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of BEFORE."""
    done = subprocess.run(["git", "archive", BEFORE], cwd=REPO, capture_output=True)
    if done.returncode:
        pytest.skip(f"this clone has no commit {BEFORE}: {done.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder
