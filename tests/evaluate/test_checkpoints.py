"""Scoring checkpoints beside a training: the one task of train.best, on what the training leaves free."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import gate, score_files
from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import checkpoints
from kit19_ray.evaluate.checkpoints import CheckpointScoring, lacking, narrowed

HELD_OUT = ["nsmc", "kobest_copa"]


def config(*words: str) -> Config:
    return loading.load(None, ["root=file:///tmp/x", "data.sources=samples", *words])


@pytest.mark.parametrize(
    ("score", "tasks", "held_out"),
    [
        ("kobest_copa.macro_f1", ["kobest_copa"], False),  # the harness's, which evaluate.tasks has too
        ("kobest_copa@5.acc", ["kobest_copa"], False),
        ("nsmc.accuracy", [], True),
        ("haerae.acc", ["haerae"], False),
    ],
)
def test_only_what_the_score_needs_is_scored(score: str, tasks: list[str], held_out: bool) -> None:
    words = [f"train.best.score={score}", "evaluate.endpoint=http://127.0.0.1:1/v1", "train.best.limit=7"]
    found = narrowed(config(*words), HELD_OUT).evaluate
    assert (found.tasks, found.held_out, found.limit) == (tasks, held_out, 7)
    assert found.endpoint is None and found.model is None and found.judge.questions == []


def test_a_held_out_task_whose_name_the_harness_was_not_asked_for() -> None:
    found = narrowed(config("train.best.score=kobest_copa.accuracy", "evaluate.tasks=[kobest_wic]"), HELD_OUT)
    assert found.evaluate.held_out and found.evaluate.tasks == []


@pytest.mark.parametrize(
    ("have", "words", "said"),
    [
        ({"CPU": 2}, ["train.workers=1"], None),
        ({"CPU": 2}, ["train.workers=2"], "takes 3 CPUs in all; the Ray cluster has 2"),
        ({"CPU": 8}, ["train.workers=2", "evaluate.workers=2", "evaluate.cpus_per_worker=4"], "10 CPUs"),
        # All GPUs train: the actors take CPUs, unless they are told to use GPUs.
        ({"CPU": 32, "GPU": 8}, ["train.workers=8"], None),
        ({"CPU": 32, "GPU": 8}, ["train.workers=8", "evaluate.use_gpu=true"], "takes 9 GPUs in all; .* has 8"),
        ({"CPU": 32, "GPU": 8}, ["train.workers=7"], None),
    ],
)
def test_what_the_cluster_lacks(have: dict[str, float], words: list[str], said: str | None) -> None:
    found = lacking(config("train.best.score=kobest_copa.acc", *words), have)
    assert (found is None) == (said is None)
    assert said is None or re.search(said, str(found))


def test_actors_take_the_gpus_that_are_left() -> None:
    wanted = config("train.best.score=kobest_copa.acc", "train.workers=7")
    left = checkpoints._placed(wanted, {"CPU": 32, "GPU": 8})
    none = checkpoints._placed(wanted, {"CPU": 32, "GPU": 7})
    assert (left.use_gpu, left.cpus_per_worker) == (True, 1)
    assert (none.use_gpu, none.cpus_per_worker) == (False, 25)


@pytest.mark.ray
def test_a_model_is_scored_below_the_root(tiny_model: Path, ray_cluster: None, configured: Any, tmp_path: Path) -> None:
    made = configured("train.best.score=kobest_copa.macro_f1", "train.best.limit=8")
    scoring = CheckpointScoring(narrowed(made, HELD_OUT), "file:///nowhere")
    scoring.require()
    scoring = pickle.loads(pickle.dumps(scoring))  # it is sent to a Ray task
    uri = scoring(str(tiny_model), f"file://{tmp_path}/train-1/scores")
    assert uri.startswith(f"file://{tmp_path}/train-1/scores/evaluate-")
    table = gate.table(score_files.read(uri))
    assert list(table) == ["kobest_copa"] and table["kobest_copa"]["n"] == 8
    assert 0 <= table["kobest_copa"]["macro_f1"] <= 1
    unknown = configured("train.best.score=kobest_coppa.acc")
    with pytest.raises(EvaluateError, match="did you mean 'kobest_copa'"):
        CheckpointScoring(narrowed(unknown, HELD_OUT), "file:///nowhere").require()
    crowded = configured("train.best.score=kobest_copa.acc", "train.workers=2")
    with pytest.raises(EvaluateError, match="takes 3 CPUs in all; the Ray cluster has 2"):
        CheckpointScoring(narrowed(crowded, HELD_OUT), "file:///nowhere").require()
