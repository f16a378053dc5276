"""The Dockerfiles, built, and what is built, run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit19_ray import __version__
from kit19_ray.operate.api.spec import RAY_VERSION
from tests.docker import buildah
from tests.docker.buildah import Builder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(bool(buildah.missing()), reason=buildah.missing() or "-"),
]
PYTHON_BASE = "localhost/python-base"
RAY_BASE = "localhost/ray-base"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    folder = tmp_path_factory.mktemp("images")
    yield Builder(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_the_operator_s_image_has_no_ray_and_answers(builder: Builder) -> None:
    builder.base(PYTHON_BASE)
    tag = builder.build("operate", PYTHON_BASE)
    assert builder.run_in(tag, "kit19", "--version") == f"kit19-ray {__version__}"
    assert "--lease-name" in builder.run_in(tag, "sh", "-c", "COLUMNS=200 kit19 operate --help")
    names = builder.run_in(tag, "pip", "list", "--format", "freeze").lower()
    assert "kopf==" in names and "kubernetes==" in names
    assert not [name for name in ("ray==", "torch==", "transformers==") if f"\n{name}" in f"\n{names}"]
    assert builder.run_in(tag, "id", "-u") == "1000"


@pytest.mark.skipif(
    os.environ.get("KIT19_BUILD_IMAGES") != "all", reason="downloads gigabytes; set KIT19_BUILD_IMAGES=all to build it"
)
def test_the_train_image_runs_the_demo_s_data_and_train_stages_as_its_user(builder: Builder, tmp_path: Path) -> None:
    builder.base(RAY_BASE)
    tag = builder.build("train", RAY_BASE)
    assert builder.run_in(tag, "id", "-u") == "1000"
    assert builder.run_in(tag, "ray", "--version").endswith(RAY_VERSION)  # KubeRay starts the cluster with it
    # A login shell, as some versions of KubeRay use, sets PATH anew.
    assert builder.run_in(tag, "bash", "-lc", "command -v ray") == "/opt/kit19/venv/bin/ray"
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    words = "--config configs/demo.yaml root=file:///runs train.workers=1 train.batch_size=4 train.epochs=0.1"
    for stage in ("data", "train"):
        told = builder.run_in(tag, "sh", "-c", f"cd /opt/kit19; kit19 {stage} {words}", volumes=(f"{root}:/runs:rw",))
        assert told.splitlines()[-1].startswith(f"file:///runs/{stage}-"), told[-2000:]
    assert list(root.glob("train-*/manifest.json"))
