"""The operator as its own process, with the rights of rbac.py and no others, against the real API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.operate.kube_client import Cluster
from tests.operate.control_plane import ControlPlane
from tests.operate.harness import OperatorProcess, create, gated, kitrun, phase, until, write_scores
from tests.operate.kuberay import Script, Scripted

pytestmark = pytest.mark.kube


def test_a_run_ends_in_serving(
    operated_plane: ControlPlane, admin: Cluster, place: str, operator: OperatorProcess, tmp_path: Path
) -> None:
    with Scripted(admin, place, Script(done=write_scores(tmp_path, 0.75))) as kuberay:
        create(operated_plane, kitrun("demo", place, **gated(tmp_path)))
        until(
            lambda: phase(admin, place, "demo") == "Serving",
            120,  # the operator begins meanwhile
            lambda: str((admin.run(place, "demo") or {}).get("status")),
        )
    status = (admin.run(place, "demo") or {})["status"]
    assert status["scores"] == {"kobest_copa": {"acc": 0.75}} and status["score"] == "0.750"
    assert {stage: one["uri"] for stage, one in status["stages"].items() if "uri" in one} == {
        stage: f"file://{tmp_path}/{stage}-1" for stage in ("data", "train", "evaluate")
    }
    assert sorted(stage for stage, _ in kuberay.seen.values()) == ["data", "evaluate", "train"]
    assert max(kuberay.together.values()) == 1 and len(kuberay.services) == 1
    events = operated_plane.kubectl("get", "events", "-n", place, "-o", "jsonpath={.items[*].reason}").stdout.split()
    assert {"DataStarting", "DataSucceeded", "Training", "EvaluateSucceeded", "Serving"} <= set(events)
    row = operated_plane.kubectl("get", "kr", "-n", place).stdout.splitlines()[1].split()
    assert row[:4] == ["demo", "Serving", "serve", "0.750"]
    assert operator.healthy() and 'kit19_run_phase{name="demo",namespace="' in operator.scrape()
    operated_plane.kubectl("delete", "kr", "demo", "-n", place, "--timeout=30s")

    def left() -> list[str]:
        kinds = "rayjobs,rayservices,networkpolicies"
        return operated_plane.kubectl("get", kinds, "-n", place, "-o", "name").stdout.split()

    until(lambda: not left(), 60, lambda: str(left()))  # by their owner references
    assert (tmp_path / "evaluate-1" / "scores.json").is_file()
