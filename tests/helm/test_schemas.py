"""The generated files are up to date and closed; what the charts render fits KubeRay's CRDs and a real API server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.helm.rendering import CI_VALUES, REPO, Helm, Json, assert_hardened, budgets
from tests.operate import control_plane as control_plane_module
from tests.operate.control_plane import ControlPlane

CI = pytest.mark.parametrize("file", CI_VALUES, ids=lambda file: f"{file.parts[-3]}-{file.stem}")


def test_generated_files_are_up_to_date(kube_tools: dict[str, str]) -> None:
    path = f"{Path(kube_tools['helm']).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "scripts.charts", "--check"]
    done = subprocess.run(
        command, cwd=REPO, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("chart", ["kit19-operator", "kit19-run"])
def test_schema_refuses_unknown_keys_everywhere(chart: str) -> None:
    schema = json.loads((REPO / f"helm/{chart}/values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    # What Kubernetes itself defines is checked by the API server; all else names its keys.
    embedded = {"Embedded", "Named", "VolumeMount", "EnvVar"}
    nodes = {"": schema} | schema["$defs"]
    for name, node in nodes.items():
        assert node.get("additionalProperties") is (name in embedded) or "enum" in node, name


@pytest.mark.parametrize("chart", ["kit19-operator", "kit19-run"])
def test_defaults_fit_their_own_schema(chart: str) -> None:
    schema = json.loads((REPO / f"helm/{chart}/values.schema.json").read_text())
    jsonschema.validate(yaml.safe_load((REPO / f"helm/{chart}/values.yaml").read_text()), schema)


@pytest.mark.parametrize("chart", ["kit19-operator", "kit19-run"])
def test_every_value_is_explained(chart: str) -> None:
    readme = (REPO / f"helm/{chart}/README.md").read_text()
    values = yaml.safe_load((REPO / f"helm/{chart}/values.yaml").read_text())
    for key in _leaves(values, ""):
        (row,) = [line for line in readme.splitlines() if line.startswith(f"| `{key}` |")]
        assert row.split("|")[-2].strip(), key


def _leaves(node: Json, prefix: str) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value and key not in ("labels", "annotations"):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@CI
def test_lint(helm: Helm, file: Path) -> None:
    helm("lint", "--strict", str(file.parents[1]), "--values", str(file))


@CI
def test_rendering_fits_kuberays_crds(helm: Helm, file: Path) -> None:
    objects = _rendered(helm, file)
    assert assert_hardened(objects)
    for one in objects:
        if one["apiVersion"].startswith("ray.io/"):
            problems = list(jsonschema.Draft202012Validator(_kuberay(one["kind"])).iter_errors(one))
            assert not problems, [f"{problem.json_path}: {problem.message}" for problem in problems]


def test_a_field_kuberay_does_not_know_would_be_found() -> None:
    job = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {}, "spec": {"entrypont": "x"}}
    (problem,) = jsonschema.Draft202012Validator(_kuberay("RayJob")).iter_errors(job)
    assert "entrypont" in problem.message


@pytest.mark.kube
@CI
def test_server_takes_what_is_rendered(control_plane: ControlPlane, helm: Helm, file: Path) -> None:
    sent = []
    for one in _rendered(helm, file, namespace="default"):
        if one["kind"] in ("ServiceMonitor", "CustomResourceDefinition"):
            continue  # no Prometheus operator here; the CRD is in use by other tests
        if one["metadata"].get("namespace"):
            one["metadata"]["namespace"] = "default"  # the teams' namespaces are not here
        if one["kind"] == "PodDisruptionBudget":
            one["apiVersion"] = budgets(control_plane)
        if one["kind"] == "Pod":
            one["spec"]["serviceAccountName"] = "default"  # a dry run makes no other
        sent.append(one)
    assert len(sent) > 4
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": sent})
    done = control_plane.kubectl("create", "--dry-run=server", "--validate=true", "-f", "-", stdin=listed, check=False)
    # Where two teams' Roles of one name meet in the one namespace nothing is stored, so nothing collides.
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(sent)


def _rendered(helm: Helm, file: Path, namespace: str = "place") -> list[Json]:
    return helm.render(file.parts[-3], yaml.safe_load(file.read_text()), namespace=namespace)


def _kuberay(kind: str) -> Json:
    """KubeRay's own schema of a kind, with unknown fields refused, as the API server does."""
    if not control_plane_module.script():
        pytest.skip("KubeRay's CRDs are not at ../shared/kube/crds")
    file = Path(control_plane_module.script()).parent / f"crds/ray.io_{kind.lower()}s.json"
    definition = json.loads(file.read_text())
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema: Json = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    out = {
        key: {name: _strict(one) for name, one in value.items()} if key == "properties" else _strict(value)
        for key, value in node.items()
        if key not in ("default", "description")
    }
    if "properties" in out and "additionalProperties" not in out:
        out["additionalProperties"] = bool(out.get("x-kubernetes-preserve-unknown-fields"))
    return out
