"""The server: it comes, is watched, stays or goes."""

from __future__ import annotations

from dataclasses import replace

from kit19_ray.operate.api.spec import STAGES
from tests.operate.world import BAD, ROOT, World, at_gate, condition


def test_suspend_takes_the_server_away_too() -> None:
    world = at_gate()
    world.step()
    world.edit(suspend=True)
    world.step()
    assert world.service() is None and world.status.endpoint is None
    world.edit()
    world.step()
    assert world.service() is not None and [j.stage for j in world.jobs()] == list(STAGES)


def test_a_higher_gate_takes_the_served_model_away() -> None:
    world = at_gate()
    world.step()
    world.edit(config=ROOT | {"evaluate": {"gate": [{"task": "kobest_copa", "min": 0.95}]}})
    world.step()
    assert world.status.phase == "GateFailed" and world.service() is None


def test_a_worse_model_never_replaces_the_one_that_is_served() -> None:
    world = at_gate()
    world.step()
    world.ready()
    world.step()
    served = world.service()
    world.scores = BAD
    world.edit(config=ROOT | {"evaluate": {"num_fewshot": 5, "gate": [{"task": "kobest_copa", "min": 0.5}]}})
    world.run_stage("evaluate")
    assert world.status.phase == "GateFailed" and world.service() == served
    assert "served on" in (world.status.message or "")


def test_a_served_run_never_times_out() -> None:
    world = at_gate(ttlSecondsAfterFinished=0)
    world.step()
    world.ready()
    world.wait(1000)
    assert world.step().actions == [] and world.status.phase == "Serving"


def test_a_server_that_does_not_answer_in_time_fails_and_recovers() -> None:
    world = at_gate(deadlines={"serve": 60})
    service = world.service()
    assert service is not None
    world.children[service.kind, service.name] = replace(service, message="DEPLOY_FAILED: no such model")
    world.wait(60)
    world.step()
    assert world.status.phase == "Failed" and "did not answer within 60 seconds: DEPLOY_FAILED" in (
        world.status.message or ""
    )
    world.ready()
    assert world.step().status.phase == "Serving"


def test_a_server_that_stops_answering_is_not_ready_any_more() -> None:
    world = at_gate()
    world.step()
    world.ready()
    world.step()
    service = world.service()
    assert service is not None
    world.children[service.kind, service.name] = replace(service, ready=False, answers=False)
    world.step()
    assert world.status.phase == "Deploying" and condition(world, "Ready")[0] == "False"


def fail(world: World, **more: bool) -> None:
    service = world.service()
    assert service is not None
    world.children[service.kind, service.name] = replace(
        service, broken=True, ready=False, message="DEPLOY_FAILED: no such model", **more
    )


def test_an_application_that_failed_is_told_at_once_and_may_come_back() -> None:
    """D1."""
    world = at_gate()
    world.step()
    fail(world)
    world.step()
    assert world.status.phase == "Failed" and condition(world, "Failed")[1] == "DeployFailed"
    assert "DEPLOY_FAILED: no such model" in (world.status.message or "") and world.status.endpoint is None
    world.ready()
    assert world.step().status.phase == "Serving"


def test_a_new_model_that_fails_leaves_the_old_one_serving_and_is_never_deleted_with_it() -> None:
    """D2."""
    world = at_gate(ttlSecondsAfterFinished=0)
    world.step()
    world.ready()
    world.step()
    fail(world, answers=True)
    world.step()
    assert world.status.phase == "Failed" and "the model before this one is served on" in (world.status.message or "")
    assert world.status.endpoint and not world.gone
    world.wait(1000)
    world.step()
    assert not world.gone and world.service() is not None


def test_a_server_the_api_server_does_not_take_is_said() -> None:
    """B1b."""
    world = at_gate(deadlines={"serve": 60})
    world.children = {key: child for key, child in world.children.items() if key[0] != "RayService"}
    world.rejected = {"serve": "the API server does not take the RayService: denied by policy"}
    world.step(lost_after=0)
    assert condition(world, "Serving")[1:] == (
        "Rejected",
        "the API server does not take the RayService: denied by policy",
    )
    world.wait(61)
    world.step(lost_after=0)
    assert world.status.phase == "Failed" and "denied by policy" in (world.status.message or "")
