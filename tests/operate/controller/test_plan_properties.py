"""`plan` under whatever may happen to a run, in every order hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit19_ray.operate.api.spec import STAGES
from kit19_ray.operate.api.status import TERMINAL, Status
from kit19_ray.operate.controller.actions import Apply
from tests.operate.world import BAD, COMPLETE, GOOD, ROOT, STATES, SUSPENDED, USER_ERROR, World

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
                {"skip": ["data"], "config": ROOT | {"train": {"data": "s3://bucket/data"}}},
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


@pytest.mark.slow
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
        world.wait(max(made.requeue_after or 0, 100_000))
        quiet = quiet + 1 if not made.actions and world.status.phase in TERMINAL else 0
        if quiet > 2:
            return
    raise AssertionError(f"after 60 looks the run is in {world.status.phase}: {world.status.message}")
