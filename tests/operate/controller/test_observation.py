"""Children as the API server has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit19_ray.operate.controller import observation
from kit19_ray.operate.controller.observation import judge, last_error
from tests.operate.world import World


def service(**status: Any) -> dict[str, Any]:
    metadata = {"name": "demo-serve-1", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 2, "labels": {}}
    return {"kind": "RayService", "metadata": metadata, "status": status}


READY = [{"type": "Ready", "status": "True", "message": "serving"}]


def runs(status: str) -> dict[str, Any]:
    return {"activeServiceStatus": {"applicationStatuses": {"kit19": {"status": status, "message": ""}}}}


def test_a_service_is_ready_in_the_version_last_applied_and_not_before() -> None:
    assert observation.child(service(observedGeneration=2, conditions=READY, **runs("RUNNING"))).ready
    assert not observation.child(service(observedGeneration=1, conditions=READY, **runs("RUNNING"))).ready
    upgrading = [*READY, {"type": "UpgradeInProgress", "status": "True", "message": ""}]
    assert not observation.child(service(observedGeneration=2, conditions=upgrading, **runs("RUNNING"))).ready
    assert not observation.child(service()).ready


@pytest.mark.parametrize(
    ("status", "ready", "broken"),
    [
        ("RUNNING", True, False),
        ("DEPLOYING", False, False),
        ("DEPLOY_FAILED", False, True),
        ("UNHEALTHY", False, False),
    ],
)
def test_kuberay_s_ready_alone_is_no_served_model(status: str, ready: bool, broken: bool) -> None:
    """KubeRay's Ready counts proxies, which answer whatever became of the application (finding D1)."""
    found = observation.child(service(observedGeneration=2, conditions=READY, **runs(status)))
    assert (found.ready, found.answers, found.broken) == (ready, ready, broken)


def test_a_new_version_that_fails_beside_an_old_one_that_answers() -> None:
    pending = {"rayClusterName": "b", "applicationStatuses": {"kit19": {"status": "DEPLOY_FAILED", "message": "no"}}}
    found = observation.child(
        service(observedGeneration=2, conditions=READY, pendingServiceStatus=pending, **runs("RUNNING"))
    )
    assert (found.ready, found.answers, found.broken, found.message) == (False, True, True, "DEPLOY_FAILED: no")


def test_a_service_that_is_not_ready_says_what_ray_serve_says() -> None:
    applications = {"kit19": {"status": "DEPLOY_FAILED", "message": "no such model"}}
    told = observation.child(service(activeServiceStatus={"applicationStatuses": applications}))
    assert told.message == "DEPLOY_FAILED: no such model"
    waiting = [{"type": "Ready", "status": "False", "message": "no endpoint"}]
    assert observation.child(service(conditions=waiting)).message == "no endpoint"


def test_a_child_without_our_marks_is_read_all_the_same() -> None:
    body = service()
    body["kind"] = "RayJob"
    body["metadata"]["annotations"] = {"kit19.dev/attempt": "x"}
    found = observation.child(body)
    assert (found.stage, found.attempt, found.hash, found.deleting) == ("", 0, "", False)
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    body["spec"] = {"suspend": True}
    assert observation.child(body).deleting and observation.child(body).suspended


def test_a_point_in_time_makes_the_round_trip() -> None:
    assert observation.stamp(observation.instant("2026-03-04T05:06:07Z")) == "2026-03-04T05:06:07Z"


@pytest.mark.parametrize(
    ("deployment", "job", "step"),
    [
        ("", "", "Starting"),
        ("Initializing", "", "Starting"),
        ("Waiting", "PENDING", "Starting"),
        ("Retrying", "FAILED", "Starting"),
        ("Running", "", "Starting"),
        ("Running", "PENDING", "Starting"),
        ("Running", "RUNNING", "Running"),
        ("Running", "SUCCEEDED", "Running"),
        ("Running", "FAILED", "Running"),
        ("Complete", "SUCCEEDED", "Succeeded"),
        ("Complete", "", "Starting"),
        ("Complete", "FAILED", "Failed"),
        ("Complete", "STOPPED", "Failed"),
        ("Failed", "SUCCEEDED", "Succeeded"),
        ("Failed", "", "Failed"),
        ("Failed", "RUNNING", "Failed"),
        ("ValidationFailed", "", "Failed"),
        ("Suspending", "", "Queued"),
        ("Suspended", "", "Queued"),
        ("SomethingNew", "", "Starting"),
    ],
)
def test_both_statuses_of_a_rayjob_together_make_the_verdict(deployment: str, job: str, step: str) -> None:
    world = World()
    world.step()
    assert judge(replace(world.stage_job("data"), deployment_status=deployment, job_status=job)).step == step


def test_a_job_held_by_kueue_is_queued_whatever_its_status_says() -> None:
    world = World()
    world.step()
    assert judge(replace(world.stage_job("data"), suspended=True)).step == "Queued"


def test_the_end_of_a_log_is_cut_to_the_error() -> None:
    assert last_error("noise\nerror: one\nmore noise\nerror: two\nhint") == "two\nhint"
    assert last_error("no such word") == "no such word" and len(last_error("x" * 5000)) == 1000
