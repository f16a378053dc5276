"""The operator's reaction, capacity and memory against a real API server.

    python benchmarks/operate.py [--runs 100]

Needs what the `kube` tests need: ../shared/kube/control-plane.sh, or KIT19_TEST_KUBECONFIG. The operator runs in a
process of its own with the rights of its Role and the variables of its Deployment. Measured:

    first child   from the `kubectl apply` of all KitRuns to the last one's first RayJob
    reaction      from the API server's answer to a RayJob's new status to the KitRun's new status, one by one
    memory        the operator's resident memory with all KitRuns under way

The limits are those of the plan: a median reaction under 1 s, 100 runs within 60 s, under 200 MiB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from environment import describe

from tests.operate import control_plane, harness
from tests.operate.harness import OperatorProcess, create, kitrun, until
from tests.operate.kuberay import RUNNING, job_status

LIMITS = {"reaction_p50_seconds": 1.0, "first_child_seconds": 60.0, "memory_mib": 200.0}


class Watcher:
    """When each KitRun's data stage was first seen running."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        import kubernetes

        self.seen: dict[str, float] = {}
        self._api = kubernetes.client.CustomObjectsApi(kubernetes.config.new_client_from_config(str(kubeconfig)))
        self._watch = kubernetes.watch.Watch()
        self._namespace = namespace
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        place = ("kit19.dev", "v1alpha1", self._namespace, "kitruns")
        for event in self._watch.stream(self._api.list_namespaced_custom_object, *place, timeout_seconds=600):
            status = event["object"].get("status") or {}
            if status.get("stages", {}).get("data", {}).get("state") == "Running":
                self.seen.setdefault(event["object"]["metadata"]["name"], time.monotonic())


def deployed_environment() -> dict[str, str]:
    """The variables k8s/operator.yaml sets in the operator's pod."""
    text = (control_plane.REPO / "k8s" / "operator.yaml").read_text(encoding="utf-8")
    (deployment,) = (one for one in yaml.safe_load_all(text) if one and one["kind"] == "Deployment")
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return {one["name"]: one["value"] for one in variables if "value" in one and one["name"] != "HOME"}


def measure(runs: int, folder: Path) -> dict[str, Any]:
    """All figures."""
    plane = control_plane.start(folder / "kube")
    try:
        control_plane.install_kuberay_crds(plane)
        harness.install(plane)
        cluster = harness.admin(plane)
        with harness.namespace(plane) as place:
            harness.grant(plane, place)
            operator = OperatorProcess(plane, place, folder).start(deployed_environment())
            try:
                until(operator.leads, 30, "the operator does not start")
                idle = operator.memory_mib()
                begun = time.monotonic()
                create(plane, *(kitrun(f"run-{n:04}", place) for n in range(runs)))
                applied = time.monotonic() - begun

                def jobs() -> list[dict[str, Any]]:
                    found: list[dict[str, Any]] = cluster.request("GET", f"/apis/ray.io/v1/namespaces/{place}/rayjobs")[
                        "items"
                    ]
                    return found

                until(lambda: len(jobs()) == runs, 600, "not every run has a child")
                first = time.monotonic() - begun
                watcher = Watcher(plane.kubeconfig, place)
                time.sleep(3)
                reactions = []
                for job in jobs():
                    owner = job["metadata"]["ownerReferences"][0]["name"]
                    path = f"/apis/ray.io/v1/namespaces/{place}/rayjobs/{job['metadata']['name']}/status"
                    cluster.request("PATCH", path, {"status": job_status(RUNNING)}, "application/merge-patch+json")
                    changed = time.monotonic()
                    until(lambda name=owner: name in watcher.seen, 60, f"{owner} did not react")
                    reactions.append(watcher.seen[owner] - changed)
                reactions.sort()
                return {
                    "runs": runs,
                    "apply_seconds": round(applied, 2),
                    "first_child_seconds": round(first, 2),
                    "reaction_p50_seconds": round(statistics.median(reactions), 3),
                    "reaction_p99_seconds": round(reactions[int(0.99 * (len(reactions) - 1))], 3),
                    "memory_mib": round(operator.memory_mib(), 1),
                    "memory_idle_mib": round(idle, 1),
                }
            finally:
                operator.kill()
                (folder / "operator.log").write_bytes(operator.log.read_bytes())
    finally:
        plane.stop()


def main() -> None:
    """Prints the figures and exits with 1 when one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="keep the logs here")
    arguments = parser.parse_args()
    reason = control_plane.missing()
    if reason:
        sys.exit(f"benchmarks/operate.py: {reason}")
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(arguments.runs, arguments.folder or Path(temporary))
    over = {name: limit for name, limit in LIMITS.items() if figures[name] > limit}
    print(json.dumps({"benchmark": "operate", **figures, "limits": LIMITS, "environment": describe()}, indent=1))
    sys.exit(f"over the limit: {over}" if over else 0)


if __name__ == "__main__":
    main()
