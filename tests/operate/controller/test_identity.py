"""What a newer operator makes of a run that an older one began: the same, unless somebody edited it since."""

from __future__ import annotations

import pytest

from kit19_ray.operate.api.spec import STAGES
from kit19_ray.operate.api.status import Status
from kit19_ray.operate.manifests import naming
from tests.operate.world import RUNNING, World, at_gate, make_spec

OLDER = {"data": "0a0a0a0a", "train": "0b0b0b0b", "evaluate": "0c0c0c0c"}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A run in Training, begun by a version that hashes otherwise; from here on this one's hash counts."""
    with monkeypatch.context() as patch:
        patch.setattr(naming, "stage_hash", lambda _, stage: OLDER[stage])
        begun = World()
        begun.run_stage("data")
        begun.step()
        begun.change(begun.stage_job("train"), RUNNING)
        begun.step()
    return begun


def test_a_job_that_runs_goes_on_under_a_newer_operator(world: World) -> None:
    job, created = world.stage_job("train"), list(world.created)
    for _ in range(3):
        world.step()
    assert world.stage_job("train") == job and world.created == created
    assert world.status.stages.train.hash == OLDER["train"] and world.status.phase == "Training"
    assert world.status.stages.data.state == "Succeeded"


def test_the_status_survives_the_way_there_and_back(world: World) -> None:
    world.step()
    assert world.status.stages.train.inputs == naming.stage_hash(world.spec, "train")
    again = Status.model_validate(world.status.dump())
    assert again.stages.train.hash == OLDER["train"]


def test_an_edit_after_the_upgrade_runs_again_only_what_it_touches(world: World) -> None:
    world.step()
    world.edit(suspend=False, retries={"rebuilds": 3})
    world.step()
    assert world.stage_job("train").hash == OLDER["train"]
    data = world.status.stages.data.hash
    world.edit(config={"root": "s3://bucket/runs", "train": {"epochs": 7}})
    world.step()
    assert world.status.stages.data.hash == data == OLDER["data"]
    assert world.status.stages.train.hash == naming.stage_hash(world.spec, "train")


def test_the_stages_after_it_are_of_this_version_s_hash_and_the_server_is_the_right_one(world: World) -> None:
    world.change(world.stage_job("train"), ("Complete", "SUCCEEDED"))
    world.scores = {"kobest_copa": {"acc": 0.9}}
    world.run_stage("evaluate")
    world.step()
    world.ready()
    world.step()
    assert world.status.phase == "Serving" and world.service() is not None
    created = list(world.created)
    world.step()
    assert world.created == created


def test_a_served_run_is_not_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(naming, "stage_hash", lambda _, stage: OLDER[stage])
        world = at_gate()
        world.step()
        world.ready()
        world.step()
        assert world.status.phase == "Serving"
    created, service = list(world.created), world.service()
    for _ in range(3):
        world.step()
    assert world.status.phase == "Serving" and (world.created, world.service()) == (created, service)


def test_a_spec_that_could_not_be_read_before_counts_as_edited(world: World) -> None:
    """The status' generation is then that of a spec from which nothing was begun."""
    from kit19_ray.operate.controller.plan import invalid

    world.status = invalid(world.generation, world.status, "config.train.epohcs: unknown key", world.now).status
    world.spec = make_spec(config={"root": "s3://bucket/runs", "train": {"epochs": 7}})
    world.step()
    hashes = {stage: getattr(world.status.stages, stage).hash for stage in STAGES}
    assert hashes == {stage: naming.stage_hash(world.spec, stage) for stage in STAGES}
