"""The definition: equal to the committed file, taken by the API server, and as strict as the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from kit19_ray.operate.api import crd
from kit19_ray.operate.api.openapi import structural
from kit19_ray.operate.api.spec import parse
from tests.operate.control_plane import ControlPlane, wait_for_crds
from tests.operate.harness import admin, install_crd

FILE = Path(__file__).parents[3] / "k8s" / "crd.yaml"


def kitrun(name: str, **spec: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {"config": {"root": "s3://bucket/runs"}, "images": {"train": "kit19:1"}}
    return {
        "apiVersion": crd.API_VERSION,
        "kind": crd.KIND,
        "metadata": {"name": name, "namespace": "default"},
        "spec": tree | spec,
    }


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane) -> ControlPlane:
    install_crd(control_plane)
    wait_for_crds(control_plane, ["kitruns.kit19.dev"])
    return control_plane


def test_the_committed_file_is_what_the_models_say() -> None:
    assert FILE.read_text() == crd.render(), "run: python -m kit19_ray.operate.api.crd > k8s/crd.yaml"


def test_every_key_has_a_description() -> None:
    def bare(node: dict[str, Any], path: str) -> list[str]:
        found = []
        for key, value in node.get("properties", {}).items():
            found += [] if value.get("description") else [f"{path}.{key}"]
            found += bare(value.get("items", value), f"{path}.{key}")
        return found

    schema = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert bare(schema["spec"], "spec") == [] and bare(schema["status"], "status") == []


@pytest.mark.kube
def test_the_server_fills_in_the_models_defaults(installed: ControlPlane) -> None:
    text = yaml.safe_dump(kitrun("defaults"))
    made = json.loads(installed.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=text).stdout)
    assert made["spec"]["config"]["train"]["learning_rate"] == 2e-5 and made["spec"]["retries"]["rebuilds"] == 2
    assert parse(made["spec"], "defaults") == parse(kitrun("defaults")["spec"], "defaults")


@pytest.mark.kube
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"config": {"root": "gs://bucket"}}, "spec.config.root"),
        ({"config": {}}, "spec.config.root: Required value"),
        ({"images": {}}, "spec.images.train: Required value"),
        (
            {"config": {"root": "s3://bucket/r", "train": {"zero_stage": 4}}},
            "spec.config.train.zero_stage: Unsupported value",
        ),
        ({"config": {"root": "s3://bucket/r", "train": {"learning_rate": 0}}}, "spec.config.train.learning_rate"),
        ({"stages": {"train": {"gpus": -1}}}, "spec.stages.train.gpus"),
        ({"stages": {"train": {"memory": "lots"}}}, "spec.stages.train.memory"),
        ({"queue": {"scheduler": "slurm"}}, "spec.queue.scheduler in body should match '^(volcano|"),
        ({"config": {"root": "s3://bucket/r", "evaluate": {"gate": [{"task": "a"}]}}}, "spec.config.evaluate.gate.min"),
    ],
)
def test_the_server_refuses_a_wrong_value_and_names_the_key(
    installed: ControlPlane, spec: dict[str, Any], said: str
) -> None:
    text = yaml.safe_dump(kitrun("wrong", **spec))
    done = installed.kubectl("create", "--validate=false", "--dry-run=server", "-f", "-", stdin=text, check=False)
    assert done.returncode and said in done.stderr


@pytest.mark.kube
def test_kubectl_refuses_an_unknown_key(installed: ControlPlane) -> None:
    text = yaml.safe_dump(kitrun("unknown", config={"root": "s3://bucket/r", "train": {"learnin_rate": 1}}))
    done = installed.kubectl("create", "--dry-run=server", "-f", "-", stdin=text, check=False)
    assert done.returncode and "learnin_rate" in done.stderr


@pytest.mark.kube
def test_null_is_the_same_as_leaving_a_key_out(installed: ControlPlane) -> None:
    spec = {"queue": {"scheduler": None}, "config": {"root": "s3://bucket/r", "train": {"use_gpu": None}}}
    text = yaml.safe_dump(kitrun("nulls", **spec))
    installed.kubectl("create", "--dry-run=server", "-f", "-", stdin=text)


@pytest.mark.kube
@pytest.mark.parametrize(("given", "meant"), [(5, [5]), ([0, 5], [0, 5])])
def test_one_number_of_solved_examples_is_as_good_as_a_list(installed: ControlPlane, given: Any, meant: Any) -> None:
    text = yaml.safe_dump(kitrun("shots", config={"root": "s3://bucket/r", "evaluate": {"num_fewshot": given}}))
    done = installed.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=text).stdout
    kept = json.loads(done)["spec"]
    assert kept["config"]["evaluate"]["num_fewshot"] == given
    assert parse(kept, "shots").config.evaluate.num_fewshot == meant


@pytest.mark.kube
def test_a_status_as_kuberay_writes_it_is_taken(installed: ControlPlane) -> None:
    """KubeRay leaves out what is empty, and its own schema fills that in; the test server's schema cannot."""
    meta = {"name": "status", "namespace": "default"}
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": meta, "spec": {"entrypoint": "true"}}
    installed.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(job))
    condition = {"type": "HeadPodReady", "status": "False", "reason": "x", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"jobDeploymentStatus": "Running", "rayClusterStatus": {"conditions": [condition]}}
    path = "/apis/ray.io/v1/namespaces/default/rayjobs/status/status"
    try:
        admin(installed).request("PATCH", path, {"status": status}, "application/merge-patch+json")
    finally:
        installed.kubectl("delete", "rayjob", "status", "-n", "default", "--wait=false")


@pytest.mark.kube
def test_kubectl_get_shows_the_columns(installed: ControlPlane) -> None:
    installed.kubectl("create", "-f", "-", stdin=yaml.safe_dump(kitrun("columns")))
    try:
        assert installed.kubectl("get", "kr").stdout.split()[:6] == [
            "NAME",
            "PHASE",
            "STAGE",
            "PROGRESS",
            "SCORE",
            "AGE",
        ]
        wide = installed.kubectl("get", "kr", "-o", "wide").stdout.splitlines()[0].split()
        assert wide == ["NAME", "PHASE", "STAGE", "PROGRESS", "SCORE", "ETA", "ENDPOINT", "MESSAGE", "AGE"]
    finally:
        installed.kubectl("delete", "kr", "columns")


def test_a_union_is_refused_and_not_guessed() -> None:
    class Either(BaseModel):
        value: int | str

    with pytest.raises(ValueError, match="a CRD cannot say"):
        structural(Either)
