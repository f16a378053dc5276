"""A drill: a namespace with KubeRay's stand-in, something that goes wrong, and a line in the table of outcomes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kit19_ray.operate.kube_client import Cluster
from tests import drill_tables
from tests.operate.control_plane import ControlPlane
from tests.operate.harness import create, gated, kitrun, phase, until
from tests.operate.kuberay import Scripted


class Drill:
    """A namespace with KubeRay's stand-in, and what a drill may ask of them."""

    def __init__(self, plane: ControlPlane, cluster: Cluster, place: str, root: Path, kuberay: Scripted) -> None:
        self.plane, self.cluster, self.place, self.root, self.kuberay = plane, cluster, place, root, kuberay
        self.script = kuberay.script
        self.begun = time.monotonic()

    def create(self, name: str = "demo", **more: Any) -> None:
        create(self.plane, kitrun(name, self.place, **(gated(self.root) | more)))

    def status(self, name: str = "demo") -> dict[str, Any]:
        return dict((self.cluster.run(self.place, name) or {}).get("status") or {})

    def reaches(self, wanted: str, name: str = "demo", seconds: float = 40) -> dict[str, Any]:
        until(
            lambda: phase(self.cluster, self.place, name) == wanted, seconds, lambda: f"{wanted}? {self.status(name)}"
        )
        return self.status(name)

    def runs(self, stage: str, name: str = "demo") -> None:
        """Waits until the stage's job runs."""
        until(
            lambda: self.status(name).get("stages", {}).get(stage, {}).get("state") == "Running",
            40,
            lambda: f"{stage} runs? {self.status(name)}",
        )

    def jobs(self, stage: str) -> int:
        """How many RayJobs the stage ever had."""
        return sum(1 for found, _ in self.kuberay.seen.values() if found == stage)

    def ends(self, drill: str, done: str, outcome: str) -> None:
        """The run is deleted and nothing is left; the outcome goes into the table."""
        seconds = time.monotonic() - self.begun
        assert max(self.kuberay.together.values(), default=0) <= 1, self.kuberay.together
        self.plane.kubectl("delete", "kitruns", "--all", "-n", self.place, "--wait=false")
        until(lambda: not self.left(), 240, lambda: f"left behind: {self.left()}")
        drill_tables.record("The operator", drill, done, outcome, seconds)

    def left(self) -> list[str]:
        kinds = "kitruns,rayjobs,rayservices,ingresses,networkpolicies,configmaps,secrets"
        found = self.plane.kubectl("get", kinds, "-n", self.place, "-o", "name").stdout.split()
        return [one for one in found if "kube-root-ca" not in one and "-token-" not in one]  # Kubernetes' own


def stage_jobs(drill: Drill, stage: str) -> list[dict[str, Any]]:
    return [j for j in drill.kuberay.items("rayjobs") if j["metadata"]["labels"]["kit19.dev/stage"] == stage]
