"""The page of what goes together, held to the code, the images and the charts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from kit19_ray.lm.cuda import OLDEST_DRIVER
from kit19_ray.operate.api import support
from kit19_ray.operate.api.spec import RAY_VERSION, KitRunSpec
from tests.operate import control_plane

REPO = Path(__file__).parents[3]
PAGE = (REPO / "docs/reference/support.md").read_text(encoding="utf-8")
ROWS = {
    cells[0]: cells[1:]
    for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if "|" in line)
    if len(cells) == 4
}


def file(path: str) -> str:
    return (REPO / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("what", "oldest"),
    [
        ("Kubernetes", support.KUBERNETES),
        ("KubeRay", support.KUBERAY),
        ("Ray", support.RAY_TOKEN),
        ("NVIDIA driver", str(max(OLDEST_DRIVER.values()))),
        ("Helm", support.HELM),
    ],
)
def test_the_oldest_versions_are_those_of_the_code(what: str, oldest: str) -> None:
    assert ROWS[what][0] == oldest


def test_the_reasons_name_the_versions_of_the_code() -> None:
    assert f"with {support.KUBERNETES_RULES} the CRD has rules of its own" in ROWS["Kubernetes"][2]
    assert f"does with {support.KUBERAY_TOKEN}" in ROWS["KubeRay"][2]
    assert f"the images have {RAY_VERSION}" in ROWS["Ray"][2] and ROWS["Ray"][1] == RAY_VERSION


def test_ray_is_the_images_own() -> None:
    (pinned,) = re.findall(r"^ray==(\S+)$", file("constraints.txt"), re.MULTILINE)
    assert pinned == RAY_VERSION
    assert yaml.safe_load(file("helm/kit19-run/values.yaml"))["rayVersion"] == RAY_VERSION
    (cuda,) = re.findall(r"^nvidia-cuda-runtime(?:-cu\d+)?==(\d+)", file("constraints.txt"), re.MULTILINE)
    assert str(OLDEST_DRIVER[cuda]) == ROWS["NVIDIA driver"][0]


def test_charts_and_keys_say_the_same() -> None:
    said = f"upgrade KubeRay to {support.KUBERAY} or newer"
    assert said in file("helm/kit19-run/templates/_helpers.tpl")
    assert f"({support.KUBERAY} or newer)" in file("helm/kit19-operator/templates/NOTES.txt")
    assert f'semverCompare "<{support.KUBERNETES_RULES}-0"' in file("helm/kit19-operator/templates/crd.yaml")
    auth = " ".join((KitRunSpec.model_fields["auth"].description or "").split())
    assert f"KubeRay {support.KUBERAY_TOKEN}, Ray {support.RAY_TOKEN} or newer" in auth


@pytest.mark.skipif(not control_plane.script(), reason="there is no ../shared/kube")
def test_what_is_tested_is_what_the_tests_run() -> None:
    folder = Path(control_plane.script()).parent
    tested = ROWS["Kubernetes"][1].split(", ")
    assert f"gitVersion=v{tested[0]}." in (folder / "control-plane.sh").read_text(encoding="utf-8").replace(" ", "")
    assert re.search(rf"\b(1|0)\.{tested[1].split('.')[1]}\b", (folder / "crd-server.sh").read_text(encoding="utf-8"))
