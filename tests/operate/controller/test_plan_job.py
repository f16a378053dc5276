"""One stage: created, followed, timed, tried again, replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit19_ray.operate.api.status import Status
from kit19_ray.operate.controller.actions import Apply, Delete
from kit19_ray.operate.controller.observation import Observed
from kit19_ray.operate.controller.plan import plan
from tests.operate.world import (
    FAILED,
    GOOD,
    INITIALIZING,
    ROOT,
    RUN,
    RUNNING,
    START,
    SUSPENDED,
    USER_ERROR,
    World,
    condition,
    make_spec,
)


def condition_after(world: World) -> tuple[str, str]:
    world.step()
    return condition(world, "Failed")[:2]


def test_a_failed_job_gets_a_new_cluster_after_a_growing_pause_until_none_is_left() -> None:
    world = World(spec=make_spec(retries={"rebuilds": 2, "backoffSeconds": 10}))
    names = []
    for pause in (10, 20):
        world.step()
        names.append(world.stage_job("data").name)
        world.run_stage("data", FAILED, "the driver died")
        assert world.status.stages.data.state == "BackingOff" and world.jobs() == []
        world.wait(pause - 1)
        assert world.step().actions == []
        world.wait(1)
    world.run_stage("data", FAILED, "the driver died")
    assert len({*names, world.status.stages.data.child}) == 3
    assert world.status.phase == "Failed" and condition(world, "Failed") == ("True", "JobFailed", "the driver died")
    world.wait(10_000)
    assert world.step().actions == []


@pytest.mark.parametrize(
    ("message", "reason", "said"),
    [
        (USER_ERROR, "UserError", "quota is 0\nraise data.quota"),
        ("exit code 1, logs: python: No module named kit19_ray", "ImageWithoutPackage", "the image has no kit19-ray"),
    ],
)
def test_a_mistake_of_the_user_is_not_tried_again(message: str, reason: str, said: str) -> None:
    world = World()
    world.run_stage("data", FAILED, message)
    status, found, text = condition(world, "Failed")
    assert (world.status.phase, status, found) == ("Failed", "True", reason) and said in text


def test_an_edit_starts_what_failed_again_with_a_fresh_budget() -> None:
    world = World(scores=GOOD)
    world.run_stage("data", FAILED, USER_ERROR)
    failed = world.stage_job("data").name
    world.edit(images={"train": "kit19:2"})
    plan_ = world.step()
    assert plan_.actions[0] == Delete("RayJob", failed) and world.status.phase == "Pending"
    world.step()
    assert world.stage_job("data").name != failed and world.status.stages.data.failures == 0


def test_a_job_that_never_starts_is_caught_by_the_deadline_and_tried_again() -> None:
    world = World(spec=make_spec(deadlines={"start": 60}))
    for failures in (1, 2):
        world.step()
        world.change(world.stage_job("data"), INITIALIZING, "0/3 nodes are available")
        world.step()
        world.wait(60)
        world.step()
        assert world.status.stages.data.failures == failures
        world.wait(60)
    status, reason, message = condition(world, "Failed")
    assert (status, reason) == ("True", "StartDeadline")
    assert "did not run within 60 seconds (Initializing): 0/3 nodes are available" in message


def test_without_kuberay_the_deadline_asks_for_it() -> None:
    world = World(spec=make_spec(deadlines={"start": 60}, retries={"rebuilds": 0}))
    world.step()
    world.wait(61)
    assert "is KubeRay's operator running" in (world.step().status.message or "")


def test_a_job_that_never_ends_is_caught_by_its_stage_s_deadline() -> None:
    world = World(spec=make_spec(deadlines={"data": 100}, retries={"rebuilds": 0}))
    world.step()
    world.change(world.stage_job("data"), RUNNING)
    world.step()
    world.wait(99)
    assert world.step().status.phase == "Data"
    world.wait(1)
    assert condition_after(world) == ("True", "StageDeadline")


def test_time_in_a_queue_does_not_count() -> None:
    world = World(spec=make_spec(deadlines={"start": 60}, queue={"kueue": "team"}))
    world.step()
    world.change(world.stage_job("data"), SUSPENDED)
    world.step()
    world.wait(5000)
    assert world.step().status.stages.data.state == "Queued" and world.status.phase == "Pending"
    world.change(world.stage_job("data"), INITIALIZING)
    world.step()
    world.wait(59)
    assert world.step().status.stages.data.state == "Starting"


def test_an_edit_in_mid_run_replaces_the_job_and_never_has_two() -> None:
    world = World(slow_deletes=True)
    world.run_stage("data")
    world.change(world.stage_job("train"), RUNNING)
    world.step()
    old = world.stage_job("train")
    world.edit(config=ROOT | {"train": {"epochs": 1}})
    assert world.step().actions == [Delete("RayJob", old.name)]
    assert world.step().actions == [] and "waiting for" in (world.status.message or "")
    world.finish_deletes()
    world.step()
    assert world.stage_job("train").name != old.name


def test_how_a_stage_runs_may_be_mended_before_it_runs_and_is_left_alone_after() -> None:
    world = World()
    world.step()
    typo = world.stage_job("data").name
    world.edit(images={"train": "kit19:2"})
    world.step()
    world.step()
    mended = world.stage_job("data")
    assert mended.name != typo
    world.change(mended, RUNNING)
    world.step()
    world.edit(images={"train": "kit19:3"})
    world.step()
    assert world.stage_job("data").name == mended.name


def test_what_is_missing_is_waited_for_and_then_given_up() -> None:
    world = World(missing={"data": "Secret aws is not in namespace default"}, spec=make_spec(deadlines={"start": 60}))
    world.step()
    assert world.created == [] and condition(world, "DataBuilt") == (
        "False",
        "Missing",
        "Secret aws is not in namespace default",
    )
    world.wait(61)
    world.step()
    assert world.status.phase == "Failed"
    world.missing = {}
    world.edit()
    world.step()
    assert [j.stage for j in world.jobs()] == ["data"]


def test_what_the_api_server_refuses_is_not_asked_for_again() -> None:
    spec = make_spec()
    seen = Observed(refused={"data": "spec.rayClusterSpec: Invalid value"})
    made = plan(RUN, 1, spec, Status(), seen, START)
    assert made.status.phase == "Failed" and made.status.condition("Failed").reason == "Refused" and not made.actions


def test_a_job_that_vanishes_is_made_again_under_its_name() -> None:
    world = World()
    world.step()
    name = world.stage_job("data").name
    world.children.clear()
    world.step()
    assert world.stage_job("data").name == name


def submitting(world: World) -> None:
    """KubeRay's word once it means to send the job; Ray has no job yet."""
    world.change(world.stage_job("data"), ("Running", ""))


def test_a_job_that_was_never_submitted_does_not_run_and_is_caught_by_the_start_deadline() -> None:
    """B1."""
    world = World(spec=make_spec(deadlines={"start": 60}, retries={"rebuilds": 0}))
    world.step()
    submitting(world)
    world.step()
    known = world.status.stages.data
    assert (known.state, known.reason, known.running_at) == ("Starting", "Submitting", None)
    world.wait(61)
    assert condition_after(world) == ("True", "StartDeadline")


@pytest.mark.parametrize("reason", ["SubmissionFailed", "JobDeploymentStatusTransitionGracePeriodExceeded"])
def test_a_failure_that_is_not_the_job_s_own_does_not_count_while_steps_are_made(reason: str) -> None:
    """B2."""
    world = World(spec=make_spec(retries={"rebuilds": 1, "backoffSeconds": 1}), scores=GOOD)
    world.run_stage("data")
    for step in (100, 200, 300, 400):
        world.step()
        world.step()
        world.metrics = {"step": step}
        world.change(world.stage_job("train"), RUNNING)
        world.step()
        world.change(world.stage_job("train"), ("Failed", "RUNNING"), "lost", reason)
        world.step()
        assert (world.status.stages.train.state, world.status.stages.train.failures) == ("BackingOff", 0)
        assert "not counted" in (world.status.message or "")
        world.wait(1)
    for failures in (1, 2):  # no further than before: now it counts
        world.step()
        world.step()
        world.change(world.stage_job("train"), ("Failed", "RUNNING"), "lost", reason)
        world.step()
        assert world.status.stages.train.failures == failures
        world.wait(2)
    assert world.status.phase == "Failed"


def test_a_gang_that_waits_for_nodes_is_queued_and_its_time_does_not_count() -> None:
    """B5."""
    world = World(spec=make_spec(deadlines={"start": 60}, queue={"scheduler": "volcano"}))
    world.step()
    world.change(world.stage_job("data"), INITIALIZING)
    world.step()
    world.wait(50_000)
    world.step()
    assert (world.status.stages.data.state, world.status.phase) == ("Queued", "Pending")
    job = world.stage_job("data")
    world.children[job.kind, job.name] = replace(job, placed=True)
    world.step()
    assert world.status.stages.data.state == "Starting"
    world.wait(61)
    world.step()
    assert world.status.stages.data.reason == "StartDeadline"


def test_a_preemption_stops_the_clock_of_a_stage() -> None:
    """D4."""
    world = World(spec=make_spec(deadlines={"data": 7200}, queue={"kueue": "team"}))
    world.step()
    for state, seconds in ((RUNNING, 3600), (SUSPENDED, 6180), (RUNNING, 3000)):
        world.change(world.stage_job("data"), state)
        world.step()
        world.wait(seconds)
        assert world.step().status.stages.data.failures == 0, state
    world.wait(600)
    world.step()
    assert world.status.stages.data.reason == "StageDeadline"


def test_what_the_api_server_does_not_take_is_said_asked_for_again_and_given_up_in_the_end() -> None:
    """B1b: a quota, an admission, a kind that is not there."""
    world = World(spec=make_spec(deadlines={"start": 60}))
    first = world.step(lost_after=0)
    created = first.status.stages.data.started_at
    world.rejected = {"data": "the API server does not take the RayJob: exceeded quota"}
    for _ in range(5):
        made = world.step(lost_after=0)
        assert [a.manifest["kind"] for a in made.actions if isinstance(a, Apply)] == ["NetworkPolicy", "RayJob"]
        assert condition(world, "DataBuilt")[1:] == (
            "Rejected",
            "the API server does not take the RayJob: exceeded quota",
        )
        assert world.status.stages.data.started_at == created
        world.wait(10)
    world.wait(15)
    world.step(lost_after=0)
    assert world.status.phase == "Failed" and "exceeded quota" in (world.status.message or "")


def test_a_job_that_is_made_again_has_its_whole_time_to_start() -> None:
    world = World(spec=make_spec(deadlines={"start": 60}))
    world.step()
    world.change(world.stage_job("data"), RUNNING)
    world.step()
    world.wait(1000)
    world.children.clear()
    world.step()
    world.step()
    assert world.status.stages.data.state == "Starting"
