"""What a status says to people: columns, conditions, notices."""

from __future__ import annotations

from dataclasses import replace

from kit19_ray.operate.controller.conditions import duration, notices
from kit19_ray.operate.controller.observation import StageReport
from kit19_ray.operate.controller.plan import plan
from tests.operate.world import FAILED, RUN, RUNNING, USER_ERROR, World, condition


def test_progress_reaches_the_columns() -> None:
    world = World()
    world.run_stage("data")
    world.change(world.stage_job("train"), RUNNING)
    metrics = {"progress": 0.42, "step": 42, "steps": 100, "eta_seconds": 3900.0, "loss": 1.5}
    seen = replace(world.observed(), reports={"train": StageReport("s3://bucket/train-1", metrics)})
    status = plan(RUN, 1, world.spec, world.status, seen, world.now).status
    assert (status.stage, status.progress, status.eta) == ("train", "42%", "1h05m")
    assert status.stages.train.loss == 1.5 and status.stages.train.uri == "s3://bucket/train-1"


def test_a_condition_keeps_its_time_while_it_holds() -> None:
    world = World()
    world.step()
    first = world.status.condition("DataBuilt").last_transition_time
    world.wait(50)
    world.step()
    assert world.status.condition("DataBuilt").last_transition_time == first
    world.run_stage("data")
    assert world.status.condition("DataBuilt").last_transition_time != first


def test_each_transition_is_told_once() -> None:
    world = World()
    before = world.status
    world.step()
    assert [n.reason for n in notices(before, world.status)] == ["DataStarting", "Data"]
    before = world.status
    world.step()
    assert notices(before, world.status) == []
    world.change(world.stage_job("data"), FAILED, USER_ERROR)
    world.step()
    told = notices(before, world.status)
    assert [(n.type, n.reason) for n in told] == [("Warning", "DataFailed"), ("Warning", "Failed")]
    assert all("quota is 0" in n.message for n in told)


def test_durations_are_short() -> None:
    assert [duration(s) for s in (45, 720, 11_100, 187_200)] == ["45s", "12m", "3h05m", "2d4h"]


def test_a_root_that_cannot_be_read_is_told_from_the_start_and_what_is_not_followed_too() -> None:
    """D10, D5."""
    world = World(unreadable="s3://bucket/runs: AccessDenied", warning="config.train.epohcs: unknown key")
    before = world.status
    world.step()
    status, reason, message = condition(world, "StorageReadable")
    assert (status, reason) == ("False", "Unreadable") and "AccessDenied; without it" in message
    assert world.status.warning == "config.train.epohcs: unknown key" and world.status.phase == "Data"
    assert {"StorageUnreadable", "NotFollowed"} <= {notice.reason for notice in notices(before, world.status)}
    world.unreadable = None
    world.step()
    assert condition(world, "StorageReadable")[0] == "False"  # nobody tried again
    world.unreadable = ""
    world.step()
    assert condition(world, "StorageReadable")[0] == "True"
