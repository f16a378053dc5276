"""The plain manifests: samples are KitRuns, and a real API server takes every file of k8s/."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from kit19_ray.operate.api import spec
from tests.helm.rendering import Json, assert_hardened, budgets
from tests.operate.control_plane import ControlPlane, wait_for_crds
from tests.operate.harness import install_crd

REPO = Path(__file__).parents[2]
FILES = sorted(path for path in (REPO / "k8s").rglob("*.yaml") if path.parent.name != "values")
SAMPLES = sorted((REPO / "k8s/samples").glob("kitrun.*.yaml"))


def objects(path: Path) -> list[Json]:
    """What a file declares."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_runs_the_operator_accepts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# kubectl apply -f k8s/samples/{path.name}\n")
    (run,) = objects(path)
    parsed = spec.parse(run["spec"], path.name)
    for image in (parsed.image("train"), parsed.image("serve")):
        assert re.search(r":[0-9]+\.[0-9]+\.[0-9]+", image), image


def test_the_debug_sample_is_the_demo() -> None:
    demo = yaml.safe_load((REPO / "configs/demo.yaml").read_text(encoding="utf-8"))
    (run,) = objects(REPO / "k8s/samples/kitrun.debug.yaml")
    config = run["spec"]["config"]
    assert config["data"] == demo["data"]
    assert config["train"]["model"] == demo["train"]["model"]
    assert config["train"]["batch_size"] == demo["train"]["batch_size"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_nothing_is_secret_or_unpinned(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ":latest" not in text
    for one in objects(path):
        assert one.get("kind") != "Secret", f"{path}: a Secret is made on the spot, not committed"
    if path.parent.name in ("k8s", "local"):
        assert_hardened(objects(path))


@pytest.mark.kube
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_real_server_takes_it(control_plane: ControlPlane, path: Path) -> None:
    definitions = control_plane.kubectl("get", "crd", "-o", "name").stdout
    if "kitruns.kit19.dev" not in definitions:
        install_crd(control_plane)
        wait_for_crds(control_plane, ["kitruns.kit19.dev"])
    for one in objects(path):
        if one["kind"] in ("Cluster", "CustomResourceDefinition"):
            continue  # kind's own file; the CRD is in use by other tests
        if one["kind"] == "PodDisruptionBudget":
            one["apiVersion"] = budgets(control_plane)
        if one["metadata"].get("namespace"):
            one["metadata"]["namespace"] = "default"  # a dry run makes no namespace
        words = ("create", "--dry-run=server", "--validate=true", "-f", "-")
        done = control_plane.kubectl(*words, stdin=yaml.safe_dump(one), check=False)
        assert done.returncode == 0, f"{one['kind']}: {done.stderr}"


@pytest.mark.kube
def test_a_field_the_crd_does_not_know_is_refused(control_plane: ControlPlane) -> None:
    if "kitruns.kit19.dev" not in control_plane.kubectl("get", "crd", "-o", "name").stdout:
        install_crd(control_plane)
        wait_for_crds(control_plane, ["kitruns.kit19.dev"])
    text = (
        (REPO / "k8s/samples/kitrun.debug.yaml").read_text(encoding="utf-8").replace("batch_size: 16", "batchsize: 16")
    )
    done = control_plane.kubectl("create", "--dry-run=server", "--validate=true", "-f", "-", stdin=text, check=False)
    assert done.returncode != 0 and "batchsize" in done.stderr


@pytest.mark.parametrize("script", sorted((REPO / "k8s").rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    assert "set -euo pipefail" in script.read_text() and script.stat().st_mode & 0o111
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_local_set_up_agrees_with_the_debug_sample() -> None:
    (run,) = objects(REPO / "k8s/samples/kitrun.debug.yaml")
    storage = run["spec"]["storage"]
    store = objects(REPO / "k8s/local/store.yaml")
    (service,) = [one for one in store if one["kind"] == "Service"]
    where = (
        f"http://{service['metadata']['name']}.{service['metadata']['namespace']}:{service['spec']['ports'][0]['port']}"
    )
    assert storage["endpoint"] == where
    script = (REPO / "k8s/local/up.sh").read_text()
    assert f"secret generic {storage['credentialsSecret']}" in script
    bucket = run["spec"]["config"]["root"].split("/")[2]
    assert f"/data/{bucket}" in (REPO / "k8s/local/store.yaml").read_text()
    for image in set(run["spec"]["images"].values()):
        assert image.split("/")[1].split(":")[0] in script
