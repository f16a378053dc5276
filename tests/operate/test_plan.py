"""`plan`: the way of a run through its phases, one by one and in every order hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit19_ray.operate.observe import Observed, Report, judge, last_error
from kit19_ray.operate.plan import Apply, Delete, DeleteRun, invalid, plan
from kit19_ray.operate.spec import STAGES
from kit19_ray.operate.state import TERMINAL, Status
from kit19_ray.operate.summary import duration, notices
from tests.operate.world import (
    BAD,
    COMPLETE,
    FAILED,
    GOOD,
    INITIALIZING,
    RUN,
    RUNNING,
    START,
    STATES,
    SUSPENDED,
    World,
    make_spec,
)

USER_ERROR = "Job entrypoint command failed with exit code 2, last available logs:\nerror: quota is 0\nraise data.quota"
ROOT = {"root": "s3://bucket/runs"}


def at_gate(scores: dict[str, Any] | None = GOOD, **more: Any) -> World:
    world = World(spec=make_spec(**more), scores=scores)
    for stage in STAGES:
        world.run_stage(stage)
    return world


def condition(world: World, kind: str) -> tuple[str, str, str]:
    found = world.status.condition(kind)
    return found.status, found.reason, found.message or ""


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
    assert world.look().after == 3600
    world.change(world.stage_job("data"), RUNNING)
    assert world.step().after == 10


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


def condition_after(world: World) -> tuple[str, str]:
    world.step()
    return condition(world, "Failed")[:2]


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


@pytest.mark.parametrize(
    ("deployment", "job", "step"),
    [
        ("", "", "Starting"),
        ("Initializing", "", "Starting"),
        ("Waiting", "PENDING", "Starting"),
        ("Retrying", "FAILED", "Starting"),
        ("Running", "RUNNING", "Running"),
        ("Running", "SUCCEEDED", "Running"),
        ("Running", "FAILED", "Running"),
        ("Complete", "SUCCEEDED", "Succeeded"),
        ("Complete", "", "Running"),
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


def test_an_edit_in_mid_run_replaces_the_job_and_never_has_two() -> None:
    world = World(slow_deletes=True)
    world.run_stage("data")
    world.change(world.stage_job("train"), RUNNING)
    world.step()
    old = world.stage_job("train")
    world.edit(config=ROOT | {"train": {"epochs": 1}})
    assert world.step().actions == [Delete("RayJob", old.name), Delete("ConfigMap", old.name)]
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


def test_suspend_takes_the_server_away_too() -> None:
    world = at_gate()
    world.step()
    world.edit(suspend=True)
    world.step()
    assert world.service() is None and world.status.endpoint is None
    world.edit()
    world.step()
    assert world.service() is not None and [j.stage for j in world.jobs()] == list(STAGES)


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
    assert world.look().after == 100
    world.wait(100)
    assert world.step().actions == [DeleteRun()]


def test_a_served_run_never_times_out() -> None:
    world = at_gate(ttlSecondsAfterFinished=0)
    world.step()
    world.ready()
    world.wait(1000)
    assert world.step().actions == [] and world.status.phase == "Serving"


def test_skipped_stages_make_no_child() -> None:
    config = {"root": "s3://b/r", "serve": {"model": "s3://b/model"}}
    world = World(spec=make_spec(config=config, skip=list(STAGES)))
    world.step()
    assert world.created == [world.status.stages.serve.child] and world.status.phase == "Deploying"
    world.edit(config=config, skip=["train", "evaluate"])
    world.step()
    assert [j.stage for j in world.jobs()] == ["data"]


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
    world.children[service.kind, service.name] = replace(service, ready=False)
    world.step()
    assert world.status.phase == "Deploying" and condition(world, "Ready")[0] == "False"


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


def test_a_lost_status_is_built_again_from_the_children() -> None:
    world = World(scores=GOOD)
    world.run_stage("data", FAILED, "the driver died")
    world.wait(10)
    world.step()
    name = world.stage_job("data").name
    world.status = Status()
    world.step()
    assert world.stage_job("data").name == name and world.status.stages.data.attempt == 1


def test_a_job_that_vanishes_is_made_again_under_its_name() -> None:
    world = World()
    world.step()
    name = world.stage_job("data").name
    world.children.clear()
    world.step()
    assert world.stage_job("data").name == name


def test_progress_reaches_the_columns() -> None:
    world = World()
    world.run_stage("data")
    world.change(world.stage_job("train"), RUNNING)
    metrics = {"progress": 0.42, "step": 42, "steps": 100, "eta_seconds": 3900.0, "loss": 1.5}
    seen = replace(world.observed(), reports={"train": Report("s3://b/train-1", metrics)})
    status = plan(RUN, 1, world.spec, world.status, seen, world.now).status
    assert (status.stage, status.progress, status.eta) == ("train", "42%", "1h05m")
    assert status.stages.train.loss == 1.5 and status.stages.train.uri == "s3://b/train-1"


def test_a_spec_that_cannot_be_read_touches_nothing() -> None:
    world = World()
    world.run_stage("data")
    made = invalid(2, world.status, "demo: 1 mistake", world.now)
    assert made.actions == [] and made.status.phase == "Failed"
    found = made.status.condition("Failed")
    assert (found.reason, found.message, found.observed_generation) == ("InvalidSpec", "demo: 1 mistake", 2)
    assert made.status.stages == world.status.stages


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


# What may happen to a run, in any order.
happenings = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 3), st.sampled_from(STATES), st.sampled_from(["", USER_ERROR])),
    st.tuples(st.just("ready")),
    st.tuples(st.just("unready")),
    st.tuples(st.just("vanish"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([1, 15, 400, 5000, 100_000])),
    st.tuples(st.just("step")),
    st.tuples(st.just("crash"), st.integers(0, 2)),
    st.tuples(st.just("forget")),
    st.tuples(st.just("finish_deletes")),
    st.tuples(
        st.just("edit"),
        st.sampled_from(
            [
                {"config": ROOT | {"data": {"quota": 7}, "evaluate": {"gate": [{"task": "kobest_copa", "min": 0.5}]}}},
                {"config": ROOT | {"train": {"epochs": 1}}},
                {"config": ROOT | {"evaluate": {"num_fewshot": 5, "gate": [{"task": "kobest_copa", "min": 0.95}]}}},
                {"images": {"train": "kit19:2"}},
                {"suspend": True},
                {"serve": {"enabled": False}},
                {"skip": ["data"], "config": ROOT | {"train": {"data": "s3://b/data"}}},
                {"serve": {"ingress": {"host": "kit19.example"}}},
                {},
            ]
        ),
    ),
    st.tuples(st.just("scores"), st.sampled_from([None, GOOD, BAD])),
    st.tuples(st.just("missing"), st.sampled_from([{}, {"train": "no Secret"}])),
)


def happen(world: World, what: tuple[Any, ...]) -> None:
    jobs = sorted(world.jobs(), key=lambda c: c.name)
    if what[0] == "change" and jobs:
        world.change(jobs[what[1] % len(jobs)], what[2], what[3])
    elif what[0] == "ready":
        world.ready()
    elif what[0] == "unready" and (service := world.service()):
        world.children[service.kind, service.name] = replace(service, ready=False)
    elif what[0] == "vanish" and jobs:
        world.children.pop(("RayJob", jobs[what[1] % len(jobs)].name))
    elif what[0] == "wait":
        world.wait(what[1])
    elif what[0] == "step":
        world.step()
    elif what[0] == "crash":
        world.step(lost_after=what[1])
    elif what[0] == "forget":
        world.status = Status()
    elif what[0] == "finish_deletes":
        world.finish_deletes()
    elif what[0] == "edit":
        world.edit(**what[1])
    elif what[0] == "scores":
        world.scores = what[1]
    elif what[0] == "missing":
        world.missing = what[1]


def check(world: World) -> None:
    """What must hold at every moment; `World.apply` holds the gate and that no name is created twice."""
    for stage in STAGES:
        alive = [job.name for job in world.jobs(stage) if not job.deleting]
        assert len(alive) <= 1, f"{stage} has {alive}"
        assert len(world.jobs(stage)) <= 1, f"{stage} has a new child beside a dying one"
    made = world.look()
    created = [a.manifest["metadata"]["name"] for a in made.actions if isinstance(a, Apply)]
    assert len(
        {(a.manifest["kind"], a.manifest["metadata"]["name"]) for a in made.actions if isinstance(a, Apply)}
    ) == len(created)
    assert len({a.stage for a in made.actions if isinstance(a, Apply)}) <= 1


@settings(max_examples=300)
@given(story=st.lists(happenings, max_size=40), slow=st.booleans(), outcome=st.sampled_from(STATES))
def test_whatever_happens_a_run_ends_with_one_child_a_stage_and_never_past_its_gate(
    story: list[tuple[Any, ...]], slow: bool, outcome: tuple[str, str]
) -> None:
    world = World(slow_deletes=slow)
    for what in story:
        happen(world, what)
        check(world)
    # From here on only time passes, and every child comes to the same state.
    quiet = 0
    for _ in range(60):
        world.finish_deletes()
        for job in world.jobs():
            world.change(job, COMPLETE if outcome == SUSPENDED else outcome)
        made = world.step()
        check(world)
        world.wait(max(made.after or 0, 100_000))
        quiet = quiet + 1 if not made.actions and world.status.phase in TERMINAL else 0
        if quiet > 2:
            return
    raise AssertionError(f"after 60 looks the run is in {world.status.phase}: {world.status.message}")
