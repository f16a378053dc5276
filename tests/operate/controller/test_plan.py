"""`plan`: the way of a run through its phases."""

from __future__ import annotations

from dataclasses import replace

from kit19_ray.operate.api.spec import STAGES
from kit19_ray.operate.api.status import Status
from kit19_ray.operate.controller.actions import Apply, DeleteRun
from kit19_ray.operate.controller.plan import invalid
from tests.operate.world import BAD, FAILED, GOOD, ROOT, RUNNING, World, at_gate, condition, make_spec


def test_a_run_goes_through_its_phases_and_serves() -> None:
    world, phases = World(scores=GOOD), []
    for stage in STAGES:
        world.step()
        phases.append(world.step().status.phase)
        world.run_stage(stage)
    phases.append(world.step().status.phase)
    world.ready()
    phases.append(world.step().status.phase)
    assert phases == ["Data", "Training", "Evaluating", "Deploying", "Serving"]
    assert [world.status.condition(k).status for k in ("DataBuilt", "Trained", "Evaluated", "Serving", "Ready")] == (
        ["True"] * 5
    )
    assert world.status.condition("Failed").status == "False"
    assert world.status.score == "0.900" and world.status.scores == GOOD
    assert world.status.endpoint and world.status.endpoint.startswith("http://demo-serve-")
    assert world.status.stages.train.uri == "s3://bucket/runs/train-1"
    assert world.look().actions == []


def test_a_plan_without_news_does_nothing_and_says_the_same() -> None:
    world = World()
    world.step()
    again = world.look()
    assert again.actions == [] and world.step().status.dump() == again.status.dump()


def test_the_status_says_when_to_look_again() -> None:
    world = World()
    world.step()
    assert world.look().requeue_after == 3600
    world.change(world.stage_job("data"), RUNNING)
    assert world.step().requeue_after == 10


def test_an_edit_runs_only_the_stages_whose_hash_changed() -> None:
    world = at_gate()
    world.step()
    world.ready()
    world.step()
    begun = len(world.created)
    world.edit(config=ROOT | {"evaluate": {"num_fewshot": 5}})
    world.step()
    assert world.status.phase == "Evaluating" and world.status.scores == {}
    world.step()
    assert [world.children["RayJob", name].stage for name in world.created[begun:]] == ["evaluate"]
    assert world.service() is not None  # the model before it answers on
    world.edit(config=ROOT | {"train": {"epochs": 1}})
    world.step()
    world.step()
    assert world.status.phase == "Training" and [j.stage for j in world.jobs()] == ["data", "train"]


def test_suspend_frees_everything_and_resume_goes_on_at_the_same_stage() -> None:
    world = World(scores=GOOD)
    world.run_stage("data")
    world.change(world.stage_job("train"), RUNNING)
    world.step()
    name = world.stage_job("train").name
    world.edit(suspend=True)
    world.step()
    assert world.status.phase == "Suspended" and [j.stage for j in world.jobs()] == ["data"]
    assert world.step().actions == []
    world.edit()
    world.step()
    assert world.status.phase == "Training" and world.stage_job("train").name == name


def test_a_failed_gate_serves_nothing_and_says_by_how_much() -> None:
    world = at_gate(BAD)
    assert world.status.phase == "GateFailed" and world.service() is None
    assert condition(world, "Failed") == (
        "True",
        "GateFailed",
        "kobest_copa acc is 0.1000, the gate asks for 0.5",
    )


def test_a_lower_gate_lets_the_same_scores_through_and_runs_nothing() -> None:
    world = at_gate(BAD)
    begun = len(world.created)
    world.edit(config=ROOT | {"evaluate": {"gate": [{"task": "kobest_copa", "min": 0.05}]}})
    world.step()
    assert world.status.phase == "Deploying" and len(world.created) == begun + 1


def test_the_gate_waits_for_scores_and_then_fails_closed() -> None:
    world = at_gate(None)
    assert world.status.phase == "Evaluating" and "waiting for the scores" in (world.status.message or "")
    world.wait(301)
    world.step()
    assert world.status.phase == "GateFailed" and "cannot be judged" in (world.status.message or "")
    world.scores = GOOD
    assert world.step().status.phase == "Deploying"


def test_without_a_gate_unreadable_scores_hold_nothing_up() -> None:
    world = at_gate(None, config=ROOT)
    assert world.status.phase == "Deploying"


def test_a_run_that_does_not_serve_succeeds_and_goes_when_its_time_is_over() -> None:
    world = at_gate(serve={"enabled": False}, ttlSecondsAfterFinished=100)
    assert world.status.phase == "Succeeded" and condition(world, "Ready")[:2] == ("True", "Succeeded")
    assert world.look().requeue_after == 100
    world.wait(100)
    assert world.step().actions == [DeleteRun()]


def test_skipped_stages_make_no_child() -> None:
    config = {"root": "s3://bucket/r", "serve": {"model": "s3://bucket/model"}}
    world = World(spec=make_spec(config=config, skip=list(STAGES)))
    world.step()
    assert world.created == [world.status.stages.serve.child] and world.status.phase == "Deploying"
    world.edit(config=config, skip=["train", "evaluate"])
    world.step()
    assert [j.stage for j in world.jobs()] == ["data"]


def test_a_lost_status_is_built_again_from_the_children() -> None:
    world = World(scores=GOOD)
    world.run_stage("data", FAILED, "the driver died")
    world.wait(10)
    world.step()
    name = world.stage_job("data").name
    world.status = Status()
    world.step()
    assert world.stage_job("data").name == name and world.status.stages.data.attempt == 1


def test_a_spec_that_cannot_be_read_touches_nothing() -> None:
    world = World()
    world.run_stage("data")
    made = invalid(2, world.status, "demo: 1 mistake", world.now)
    assert made.actions == [] and made.status.phase == "Failed"
    found = made.status.condition("Failed")
    assert (found.reason, found.message, found.observed_generation) == ("InvalidSpec", "demo: 1 mistake", 2)
    assert made.status.stages == world.status.stages


def test_a_run_of_the_version_before_goes_on_and_is_closed() -> None:
    """Its job has other pods, no policy and an older status; it is left alone, and its pods get a policy."""
    world = World(scores=GOOD)
    world.run_stage("data")
    world.step()
    world.change(world.stage_job("train"), RUNNING)
    world.step()
    job = world.stage_job("train")
    world.children[job.kind, job.name] = replace(job, build="of-before", placed=False)
    world.children = {key: child for key, child in world.children.items() if key[0] != "NetworkPolicy"}
    tree = world.status.dump()
    tree.pop("warning", None)
    tree["conditions"] = [one for one in tree["conditions"] if one["type"] != "StorageReadable"]
    world.status = Status.model_validate(tree)
    made = world.step()
    assert [(type(a), a.manifest["kind"]) for a in made.actions if isinstance(a, Apply)] == [(Apply, "NetworkPolicy")]
    assert world.stage_job("train").name == job.name and world.status.stages.train.state == "Running"
    assert world.step().actions == []
