"""The operator's process with the token and the rights of its own chart: a rule that the chart lacks shows here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helm.rendering import Helm
from tests.helm.test_lifecycle import ADOPT
from tests.operate import harness
from tests.operate.control_plane import ControlPlane, wait_for_crds

pytestmark = pytest.mark.kube


def test_the_charts_rights_are_enough(cluster_helm: Helm, control_plane: ControlPlane, tmp_path: Path) -> None:
    with harness.namespace(control_plane) as place:
        where = ("--namespace", place)
        # The release's name is the ServiceAccount's whose token the process gets.
        cluster_helm("install", "kit19-operator", "helm/kit19-operator", *where, *ADOPT)
        wait_for_crds(control_plane, ["kitruns.kit19.dev"])
        operator = harness.OperatorProcess(control_plane, place, tmp_path).start()
        try:
            root = tmp_path / "root"
            root.mkdir()
            harness.create(control_plane, harness.kitrun("first", place, config={"root": f"file://{root}"}))

            def get(kind: str) -> list[dict[str, object]]:
                found = control_plane.kubectl("get", kind, "-n", place, "-o", "json").stdout
                return list(json.loads(found)["items"])

            def started() -> bool:
                return bool(get("rayjobs")) and "status" in get("kitruns")[0]

            harness.until(started, 90, "no RayJob and no status")
            assert operator.leads() and get("leases")
            patch = json.dumps({"spec": {"suspend": True}})
            control_plane.kubectl("patch", "kitrun/first", "-n", place, "--type=merge", "-p", patch)
            harness.until(lambda: not get("rayjobs"), 90, "the RayJob of a suspended run stays")
            control_plane.kubectl("delete", "kitrun/first", "-n", place, "--timeout=90s")
            assert [event for event in get("events") if event["involvedObject"]["kind"] == "KitRun"]  # type: ignore[index]
        finally:
            code = operator.stop()
        log = operator.log.read_text()
        assert code == 0 and "orbidden" not in log, log[-3000:]
        cluster_helm("uninstall", "kit19-operator", *where)
