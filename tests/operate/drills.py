"""A drill: a namespace with KubeRay's stand-in, something that goes wrong, and a line in the table of outcomes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kit19_ray.operate.kube_client import Cluster
from tests.operate.control_plane import ControlPlane
from tests.operate.harness import create, gated, kitrun, phase, until
from tests.operate.kuberay import Scripted

TABLE: list[tuple[str, str, str, float]] = []
HEAD = """# Drills

What was done to a run under way, and how it ended. Each row is a test of `tests/operate/` against a real
API server, the operator in a process of its own; KubeRay is a stand-in that writes statuses. In every one: never two
RayJobs of one stage at once, and after the KitRun's deletion nothing left but what the stages wrote to the storage.

Written by `KIT19_DRILLS=docs/explanation/drills.md pytest tests/operate -k drill`, times on 2 cores.

| drill | what is done | outcome | seconds |
| --- | --- | --- | ---: |
"""


def write_table(file: Path) -> None:
    """Puts the outcomes of this run into the first table of the page; a drill run alone takes the place of its row."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else HEAD.splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("| ---")) + 1
    end = next((number for number in range(rule, len(lines)) if not lines[number].startswith("| ")), len(lines))
    rows = {line.split(" | ")[0]: line for line in lines[rule:end]}
    rows |= {f"| {drill}": f"| {drill} | {done} | {outcome} | {took:.0f} |" for drill, done, outcome, took in TABLE}
    file.write_text("\n".join([*lines[:rule], *rows.values(), *lines[end:]]) + "\n", encoding="utf-8")


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
        TABLE.append((drill, done, outcome, seconds))

    def left(self) -> list[str]:
        kinds = "kitruns,rayjobs,rayservices,ingresses,networkpolicies,configmaps,secrets"
        found = self.plane.kubectl("get", kinds, "-n", self.place, "-o", "name").stdout.split()
        return [one for one in found if "kube-root-ca" not in one and "-token-" not in one]  # Kubernetes' own


def stage_jobs(drill: Drill, stage: str) -> list[dict[str, Any]]:
    return [j for j in drill.kuberay.items("rayjobs") if j["metadata"]["labels"]["kit19.dev/stage"] == stage]
