"""The Dockerfiles, built, and what is built, run. Minutes and gigabytes each, so only what is asked for:

    KIT19_BUILD_IMAGES=operate,data,train,serve make test TESTS=tests/docker/test_builds.py      (or =all)

build/images.log has what every command says as it says it, how long it took and how large each image is.
KIT19_IMAGES_STORE names a folder to keep base, layers and images in for the next time; without it they are deleted.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from kit19_ray import __version__
from kit19_ray.operate.api.spec import RAY_VERSION
from tests.docker import buildah
from tests.docker.buildah import Builder
from tests.operate.control_plane import ControlPlane

REASON = "minutes and gigabytes: KIT19_BUILD_IMAGES=all, or some of operate,data,train,serve"
ASKED = os.environ.get("KIT19_BUILD_IMAGES", "").split(",")
DEMO = "--config configs/demo.yaml root=file:///runs train.workers=1 train.batch_size=4 train.epochs=0.1"
# An hour is for a slow network; each command has a limit of its own.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(buildah.missing()), reason=buildah.missing() or "-"),
]


def asked(*names: str) -> pytest.MarkDecorator:
    """Skips unless one of the images is asked for."""
    return pytest.mark.skipif(not {"all", *names} & set(ASKED), reason=REASON)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    log = buildah.REPO / "build" / "images.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("")
    kept = os.environ.get("KIT19_IMAGES_STORE")
    made = Builder(Path(kept) if kept else tmp_path_factory.mktemp("images"), log)
    made.folder.mkdir(parents=True, exist_ok=True)
    yield made
    if not kept:
        made.close()


@pytest.fixture(scope="module")
def operate(builder: Builder) -> str:
    return builder.build("operate", "Dockerfile.operate", 900)


@pytest.fixture(scope="module")
def train(builder: Builder) -> str:
    return builder.build("train", "Dockerfile.stage", 2400, STAGE="train", TORCH="cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that the images' user may write to."""
    folder = tmp_path_factory.mktemp("runs")
    folder.chmod(0o777)
    return folder


def installed(builder: Builder, tag: str) -> dict[str, str]:
    """Name and version of each package by the image's bill of materials, which pip has to agree with."""
    bill = json.loads(builder.run_in(tag, "cat", "/opt/kit19/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    found = {one["name"].lower().replace("_", "-"): one["version"] for one in bill["components"]}
    listed = json.loads(builder.run_in(tag, "pip", "list", "--format", "json"))
    assert found == {
        one["name"].lower().replace("_", "-"): one["version"] for one in listed if one["name"] != "kit19-ray"
    }
    return found


def stage(builder: Builder, tag: str, name: str, runs: Path) -> None:
    """Runs a stage of the demo in an image, as its user."""
    words = ("sh", "-c", f"cd /opt/kit19; kit19 {name} {DEMO}")
    said = builder.run_in(tag, *words, volumes=(f"{runs}:/runs:rw",), seconds=900)
    assert said.splitlines()[-1].startswith(f"file:///runs/{name}-"), said[-2000:]
    (made,) = [one for one in runs.iterdir() if one.name.startswith(f"{name}-")]
    assert (made / "manifest.json").is_file() and made.stat().st_uid == 1000


@asked("operate")
def test_the_operator_s_image_has_no_ray_and_answers(builder: Builder, operate: str) -> None:
    assert builder.run_in(operate, "kit19", "--version") == f"kit19-ray {__version__}"
    assert "--lease-name" in builder.run_in(operate, "sh", "-c", "COLUMNS=200 kit19 operate --help")
    names = installed(builder, operate).keys()
    assert {"kopf", "kubernetes"} <= names and not names & {"ray", "torch", "transformers"}
    assert builder.run_in(operate, "id", "-u") == "1000"


@asked("operate")
@pytest.mark.kube
def test_the_operator_s_image_works_against_an_api_server(
    builder: Builder, operate: str, operated_plane: ControlPlane, tmp_path: Path
) -> None:
    plain = tmp_path / "kubeconfig"
    # Certificates in it and not beside it: the container sees this file alone.
    plain.write_text(operated_plane.kubectl("config", "view", "--raw", "--flatten").stdout)
    plain.chmod(0o644)
    health, metrics = _free_port(), _free_port()
    words = "--all-namespaces --lease-namespace default --lease-name image"
    line = f"KUBECONFIG=/kubeconfig exec kit19 operate {words} --health-port {health} --metrics-port {metrics}"
    with builder.started_in(operate, "sh", "-c", line, volumes=(f"{plain}:/kubeconfig:ro",)) as process:
        _until_ok(f"http://127.0.0.1:{health}/healthz", process.poll, 120)
        limit = time.monotonic() + 60
        while "image" not in operated_plane.kubectl("get", "leases", "--namespace", "default").stdout:
            assert time.monotonic() < limit, "the operator takes no lease"
            time.sleep(1)


@asked("data")
def test_the_data_image_needs_no_torch(builder: Builder, runs: Path) -> None:
    tag = builder.build("data", "Dockerfile.stage", 1200, STAGE="data")
    assert "torch" not in installed(builder, tag)
    stage(builder, tag, "data", runs)


@asked("train", "serve")
def test_the_train_image_runs_the_demo_s_data_and_train_stages_as_its_user(
    builder: Builder, train: str, runs: Path
) -> None:
    assert builder.run_in(train, "id", "-u") == "1000"
    assert builder.run_in(train, "ray", "--version").endswith(RAY_VERSION)  # KubeRay starts the cluster with it
    # A login shell, as some versions of KubeRay use, sets PATH anew.
    assert builder.run_in(train, "bash", "-lc", "command -v ray") == "/opt/kit19/venv/bin/ray"
    assert installed(builder, train)["ray"] == RAY_VERSION
    for name in ("data", "train"):
        stage(builder, train, name, runs)


@asked("serve")
def test_the_serve_image_answers_a_question(builder: Builder, train: str, runs: Path) -> None:
    del train  # its test leaves the model
    tag = builder.build("serve", "Dockerfile.stage", 2400, STAGE="serve", TORCH="cpu")
    assert not installed(builder, tag).keys() & {"lm-eval", "datasets"}
    (model,) = runs.glob("train-*/manifest.json")
    port = _free_port()
    line = (
        f"cd /opt/kit19; exec kit19 serve serve.model=/runs/{model.parent.name} serve.port={port} serve.use_gpu=false"
    )
    with builder.started_in(tag, "sh", "-c", line, volumes=(f"{runs}:/runs:ro",)) as process:
        address = f"http://127.0.0.1:{port}"
        _until_ok(f"{address}/readyz", process.poll, 300)
        name = httpx.get(f"{address}/v1/models").json()["data"][0]["id"]
        question = {"model": name, "messages": [{"role": "user", "content": "안녕하세요?"}], "max_tokens": 4}
        answer = httpx.post(f"{address}/v1/chat/completions", json=question, timeout=120)
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] >= 1, answer.text


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


def _until_ok(url: str, ended: Callable[[], int | None], seconds: float) -> None:
    """Waits until a URL answers 200.

    Raises:
        AssertionError: it does not within `seconds`, or the process has ended.
    """
    limit, last = time.monotonic() + seconds, ""
    while time.monotonic() < limit:
        assert ended() is None, "it has ended: see build/images.log"
        try:
            answer = httpx.get(url, timeout=10)
        except httpx.HTTPError as error:
            last = repr(error)
        else:
            if answer.status_code == 200:
                return
            last = answer.text
        time.sleep(1)
    raise AssertionError(f"{url}: no 200 within {seconds:.0f} s: {last}")
