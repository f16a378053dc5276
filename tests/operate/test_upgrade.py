"""From the version before tokens, policies and keys: its CRD and its operator, then this one's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kit19_ray.operate.api import rbac
from kit19_ray.operate.api.spec import STAGES
from tests.operate import harness
from tests.operate.control_plane import ControlPlane, wait_for_crds
from tests.operate.drills import Drill, stage_jobs
from tests.operate.fixtures import BEFORE
from tests.operate.harness import OperatorProcess, until

pytestmark = pytest.mark.kube
CONFIG_MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "patch", "delete"]}


@pytest.fixture
def older_definition(operated_plane: ControlPlane, before: Path) -> Iterator[None]:
    """That version's CRD; this one's is back afterwards."""
    harness.install_crd(operated_plane, yaml.safe_load((before / "k8s/crd.yaml").read_text(encoding="utf-8")))
    wait_for_crds(operated_plane, ["kitruns.kit19.dev"])
    yield
    harness.install_crd(operated_plane)


def uids(drill: Drill, plural: str) -> set[str]:
    return {one["metadata"]["uid"] for one in drill.kuberay.items(plural)}


@pytest.mark.usefixtures("older_definition")
def test_drill_the_operator_is_upgraded_in_mid_run(
    operated_plane: ControlPlane, drill: Drill, before: Path, tmp_path: Path
) -> None:
    rules = [rule.manifest() for rule in (*rbac.RULES, *rbac.LEASE_RULES)]
    harness.grant(operated_plane, drill.place, rules=[*rules, CONFIG_MAPS])
    older = OperatorProcess(operated_plane, drill.place, tmp_path, identity="older")
    older.source = before
    newer = OperatorProcess(operated_plane, drill.place, tmp_path, identity="newer")
    try:
        older.start()
        until(older.leads, 30, lambda: older.log.read_text()[-3000:])
        drill.create("served")
        drill.reaches("Serving", "served")
        drill.script.held = {"train"}
        drill.create("training")
        drill.runs("train", "training")
        seen, jobs, services = dict(drill.kuberay.seen), uids(drill, "rayjobs"), uids(drill, "rayservices")
        assert drill.cluster.run(drill.place, "training")["metadata"]["finalizers"]  # type: ignore[index]
        hashes = {stage: drill.status("served")["stages"][stage]["hash"] for stage in STAGES}
        assert older.stop() == 0

        harness.install_crd(operated_plane)
        wait_for_crds(operated_plane, ["kitruns.kit19.dev"])
        harness.grant(operated_plane, drill.place)
        newer.start()

        def taken_up(name: str) -> bool:
            """Whether this version has written the status."""
            return any(one["type"] == "StorageReadable" for one in drill.status(name).get("conditions", []))

        until(lambda: taken_up("served") and taken_up("training"), 40, lambda: newer.log.read_text()[-3000:])
        assert dict(drill.kuberay.seen) == seen, "a stage was begun anew"
        assert uids(drill, "rayjobs") == jobs and uids(drill, "rayservices") == services
        assert not drill.cluster.run(drill.place, "training")["metadata"].get("finalizers")  # type: ignore[index]
        assert {stage: drill.status("served")["stages"][stage]["hash"] for stage in STAGES} == hashes
        policies = drill.plane.kubectl("get", "networkpolicies", "-n", drill.place, "-o", "name").stdout.split()
        assert len(policies) == 2
        drill.script.held.clear()
        drill.reaches("Serving", "training")
        drill.reaches("Serving", "served")
        assert [drill.jobs(stage) for stage in STAGES] == [2, 2, 2] and len(drill.kuberay.services) == 2
        for service in drill.kuberay.items("rayservices"):
            (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
            assert application["args"]["serve"]["auth"] == "keys"
        assert stage_jobs(drill, "train")[0]["metadata"]["labels"]["kit19.dev/run"]
        drill.ends(
            "operator upgraded",
            f"from {BEFORE}, CRD and operator, with one run in Training and one in Serving",
            "both go on: no RayJob and no RayService is made anew; policies and keys come",
        )
    finally:
        older.kill()
        newer.kill()
