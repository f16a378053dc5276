"""An evaluation that is killed goes on with the same command: same scores, and no question is asked twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.io import storage

# Slows the actors down, so that there is something to kill, and notes each question that reaches the model.
_RUNNER = """
import sys, time
from kit19_ray.config import loading
from kit19_ray.evaluate import actors, stage
from kit19_ray.evaluate import response_log

response_log.ResponseLog.__init__.__defaults__ = (0.0,)  # every response is written when it comes
actors._CHUNKS_PER_ACTOR = 1000

class Slow(actors.Scorer):
    def loglikelihoods(self, requests):
        time.sleep(0.05)
        found = super().loglikelihoods(requests)
        with open(sys.argv_log, "a") as file:
            file.writelines(repr((tuple(c), tuple(k))) + "\\n" for c, k in requests)
        return found
"""


def command(folder: Path, model: Path) -> list[str]:
    script = folder / "run.py"
    script.write_text(
        _RUNNER.replace("sys.argv_log", repr(str(folder / "asked.log")))
        + f"""
actors.Scorer = Slow
config = loading.load(None, ["root={folder}/runs", "data.sources=samples", "evaluate.held_out=false",
    "evaluate.tasks=[kobest_copa,kobest_hellaswag]", "evaluate.workers=1", "evaluate.cpus_per_worker=1"])
print(stage.run(config, {str(model)!r}, None))
""",
        "utf-8",
    )
    return [sys.executable, str(script)]


def finish(folder: Path, model: Path, environment: dict[str, str]) -> tuple[str, Any]:
    done = subprocess.run(
        command(folder, model), capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    uri = done.stdout.strip().splitlines()[-1]
    return done.stderr, json.loads(storage.read_text(storage.join(uri, "scores.json")))


def answered(folder: Path, task: str) -> int:
    """Responses of a task that is under way, in storage."""
    files = folder.glob(f"runs/evaluate-*/unfinished/responses/{task}.0-shot/*.jsonl")
    return sum(len(path.read_text("utf-8").splitlines()) for path in files)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)  # five starts of Ray and the harness
def test_kill_9_at_three_moments(tiny_model: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    whole = tmp_path / "whole"
    whole.mkdir()
    _, expected = finish(whole, tiny_model, environment)
    cut = tmp_path / "cut"
    cut.mkdir()
    # Killed at the start, in mid-task, and in the second task; each time so many of its responses are in storage.
    moments = (("kobest_copa", 3), ("kobest_copa", 30), ("kobest_hellaswag", 20))
    for task, moment in moments:
        process = subprocess.Popen(
            command(cut, tiny_model),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and answered(cut, task) < moment:
            time.sleep(0.02)
        assert process.poll() is None, "it was still running"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    said, scores = finish(cut, tiny_model, environment)
    assert "kobest_copa.0-shot was finished before" in said, said
    assert "were answered before" in said, said
    for task, entry in expected["tasks"].items():
        assert scores["tasks"][task] == entry
    asked = (cut / "asked.log").read_text("utf-8").splitlines()
    # What was in flight at the moment of a kill, two chunks an actor, was never heard: it is asked once more.
    twice = len(asked) - len(set(asked))
    assert set(asked) == set((whole / "asked.log").read_text("utf-8").splitlines())
    assert twice <= len(moments) * 2 * 4, f"{twice} of {len(set(asked))} were asked again"
    assert not list(cut.glob("runs/evaluate-*/unfinished"))
