"""What the tests of the charts share: running helm, and picking from what it renders."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.operate.control_plane import ControlPlane

REPO = Path(__file__).parents[2]
Json = dict[str, Any]
CI_VALUES = sorted((REPO / "helm").glob("*/ci/*.yaml"))


class Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: 2e-05 is a number there, text in YAML 1.1."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]+$"), list("-0123456789")
)


@dataclass
class Helm:
    """The helm program.

    Attributes:
        folder: where values go and helm keeps its own files.
        kubeconfig: of the cluster; None has none.
    """

    binary: str
    folder: Path
    kubeconfig: str | None = None

    def __call__(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs helm in the repository."""
        command = [self.binary, *words]
        if self.kubeconfig:
            command += ["--kubeconfig", self.kubeconfig]
        home = {f"HELM_{name}_HOME": str(self.folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder)} | home
        done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=300)
        if check and done.returncode:
            raise AssertionError(f"helm {' '.join(words)}: {done.stderr}")
        return done

    def values(self, values: Json) -> str:
        """Path of a file with `values`."""
        path = self.folder / "values.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return str(path)

    def render(self, chart: str, values: Json, release: str = "rel", namespace: str = "place") -> list[Json]:
        """The objects of a release, hooks included."""
        done = self("template", release, f"helm/{chart}", "--namespace", namespace, "--values", self.values(values))
        return [one for one in yaml.load_all(done.stdout, Loader) if one]

    def refuse(self, chart: str, values: Json, release: str = "rel") -> str:
        """What helm says of values it does not render."""
        done = self("template", release, f"helm/{chart}", "--values", self.values(values), check=False)
        assert done.returncode != 0, done.stdout
        return done.stderr


def only(objects: list[Json], kind: str, name: str | None = None) -> Json:
    """The one object of a kind (and name)."""
    found = [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert len(found) == 1, [(one["kind"], one["metadata"]["name"]) for one in objects]
    return found[0]


def kinds(objects: list[Json]) -> set[str]:
    """The kinds of the objects, tests left out."""
    return {one["kind"] for one in objects if "helm.sh/hook" not in one["metadata"].get("annotations", {})}


def pod_specs(node: Any) -> Iterator[Json]:
    """Every pod spec inside an object."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pod_specs(value)
    elif isinstance(node, list):
        for value in node:
            yield from pod_specs(value)


def assert_hardened(objects: list[Json], read_only: bool = False) -> int:
    """Every pod is one the `restricted` Pod Security Standard admits; returns how many there are."""
    number = 0
    for one in objects:
        for spec in pod_specs(one):
            number += 1
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["runAsUser"] > 0
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in spec["containers"]:
                own = container["securityContext"]
                assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
                assert not read_only or own["readOnlyRootFilesystem"] is True
                assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
                assert not container["image"].endswith(":latest") and (":" in container["image"])
    return number


def budgets(plane: ControlPlane) -> str:
    """The version the server has PodDisruptionBudgets in: 1.20 has no policy/v1, newer ones no other."""
    return "policy/v1" if "policy/v1" in plane.kubectl("api-versions").stdout.split() else "policy/v1beta1"
