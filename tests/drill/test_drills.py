"""Drills as `kit19 drill` runs them: minutes each, so most of them where KIT19_LONG is set."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

from kit19_ray.config.schema import Config
from kit19_ray.drill import faults, stage, table
from kit19_ray.drill.drills import DRILLS, SHORT, Drill
from kit19_ray.drill.measure import DrillOutcome, measure
from kit19_ray.errors import TrainError
from kit19_ray.io import storage

LONG = pytest.mark.skipif(not os.environ.get("KIT19_LONG"), reason="minutes a drill: KIT19_LONG=1")


def ended_badly(outcomes: list[DrillOutcome]) -> dict[str, str]:
    return {found["drill"]: found["wrong"] for found in outcomes if found["wrong"]}


@LONG
@pytest.mark.ray
def test_a_killed_worker_comes_back_with_the_same_weights(ray_cluster: None, tmp_path: Any) -> None:
    """Recovery inside one driver."""
    (found,) = stage.run(Config(root=f"file://{tmp_path}"), ["save: half sent"])
    assert found["wrong"] == "" and found["weights"] == "equal"
    assert found["steps_lost"] in (3, 4)  # those since the save before, and the one that may have been made meanwhile
    assert found["detected_seconds"] is not None and found["next_step_seconds"] is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_an_error_inside_a_collective_is_told_by_its_rank(ray_cluster: None, tmp_path: Any) -> None:
    """Its peers wait in a collective it never joins: Ray ends them, and the message is of the one that failed."""
    from kit19_ray.train.fit import fit

    spec = stage._spec(Config(root=f"file://{tmp_path}"), f"file://{tmp_path}")
    spec = stage._of(spec, "error", 12, max_failures=0)
    with pytest.raises(RuntimeError, match=r"training failed: worker 1: .*the drill's error"):
        fit(spec, faults.loop, {"fault": faults.Fault("error")})


@LONG
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_every_drill_of_one_cluster(ray_cluster: None, tmp_path: Any) -> None:
    assert ended_badly(stage.run(Config(root=f"file://{tmp_path}"), ["all"])) == {}


@LONG
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [drill.name for drill in DRILLS if drill.local])
def test_every_drill_that_takes_a_node(name: str, tmp_path: Any) -> None:
    assert ended_badly(stage.run(Config(root=f"file://{tmp_path}"), [name], local=True)) == {}


def test_a_node_that_does_not_come_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would wait for that node for ever."""

    def fail(*_: Any) -> None:
        raise RuntimeError("no room for it")

    monkeypatch.setattr(stage, "_exchange", fail)
    trouble: list[Exception] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray leaves one of its own behind
    threading.Timer(0.5, stage._take_a_node, ("", DRILLS[0], None, trouble)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            time.sleep(60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [str(error) for error in trouble] == ["no room for it"]


class TestNames:
    def test_the_usual_ones(self) -> None:
        assert [drill.name for drill in stage.named([], local=False)] == list(SHORT)
        assert any(drill.local for drill in stage.named([], local=True))

    def test_one_that_is_not_there(self) -> None:
        with pytest.raises(TrainError, match=r"no drill 'wroker' \(did you mean 'worker'\?\)"):
            stage.named(["wroker"], local=False)

    def test_one_that_takes_a_node_away(self) -> None:
        with pytest.raises(TrainError, match="'node' takes nodes away: it has a cluster of its own, with --local"):
            stage.named(["node"], local=False)


class TestMeasuring:
    """From what a run leaves to a row."""

    def measured(
        self, root: str, drill: Drill, lines: list[tuple[int, float]], events: list[tuple[str, float]]
    ) -> DrillOutcome:
        from kit19_ray.artifacts.metrics_log import EVENTS, NAME, to_json

        storage.write_text(
            f"{root}/{NAME}", "".join(to_json({"step": s, "loss": 1.0, "time": t}) + "\n" for s, t in lines)
        )
        told = [to_json({"step": 0, "text": text, "time": t}) + "\n" for text, t in events]
        storage.write_text(f"{root}/{EVENTS}", "".join(told))
        storage.write_text(f"{root}/{faults.STRUCK}", '{"time": 100.0, "step": 8}')
        made = {"files": {}, "validation_loss": 2.0, "skipped_steps": 0}
        return measure(root, drill, made, made)

    def test_a_restart(self, tmp_path: Any) -> None:
        worker = DRILLS[0]
        found = self.measured(
            f"file://{tmp_path}", worker, [(6, 98.0), (7, 120.0)], [("goes on at step 6 with 2 workers", 115.0)]
        )
        assert (found["detected_seconds"], found["steps_lost"], found["next_step_seconds"]) == (15.0, 2, 20.0)
        assert found["wrong"] == ""
        assert "| worker | SIGKILL of a worker between saves | 15.0 s | 2 | 20.0 s | equal |" in table.markdown([found])

    def test_what_should_not_have_happened_is_said(self, tmp_path: Any) -> None:
        worker = DRILLS[0]
        found = self.measured(f"file://{tmp_path}", worker, [(9, 101.0)], [])
        assert found["wrong"] == "the workers were not started again"
        found = self.measured(f"file://{tmp_path}", worker, [(2, 101.0)], [("goes on at step 1 with 2 workers", 101.0)])
        assert found["wrong"] == "7 steps were lost, at most 5 may be"

    def test_nothing_was_done(self, tmp_path: Any) -> None:
        found = measure(f"file://{tmp_path}", DRILLS[0], {}, {})
        assert found["wrong"] == "it was over before anything was done to it"
