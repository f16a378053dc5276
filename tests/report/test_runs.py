from __future__ import annotations

import json
from typing import Any

import pytest

from kit19_ray.artifacts import run_start
from kit19_ray.errors import StorageError
from kit19_ray.io import storage
from kit19_ray.report import comparison, page
from kit19_ray.report.runs import collect


def test_a_root_gives_every_training_beside_its_evaluations(root: Any) -> None:
    data = root.data("data-1")
    first, second = root.train("train-aaaa", data), root.train("train-bbbb", data)
    root.evaluate("evaluate-1", first)
    root.evaluate("evaluate-2", first, limit=3)
    root.evaluate("evaluate-3", "organisation/model")
    storage.write_text(storage.join(root.uri, "train-torn", "metrics.jsonl"), "")
    runs = collect([root.uri], None)
    assert [run.name for run in runs] == [
        "train-bbbb", "train-aaaa / evaluate-1", "train-aaaa / evaluate-2", "evaluate-3",
    ]  # fmt: skip
    bare, scored, _, foreign = runs
    assert (bare.train_uri, bare.scores, len(bare.lines)) == (second, None, 3)
    assert scored.data is not None and scored.data["config"] == {"quota": 30}
    assert (foreign.train, foreign.lines) == (None, [])
    assert collect([], root.uri) == runs


def test_a_training_brings_its_evaluation_and_an_evaluation_its_training(root: Any) -> None:
    trained = root.train("train-aaaa", root.data("data-1"))
    scored = root.evaluate("evaluate-1", trained, correct={"0": 1.0})
    (by_training,) = collect(["train-aaaa"], root.uri)
    (by_evaluation,) = collect([scored], None)
    assert by_training == by_evaluation
    assert by_training.train_uri == trained and by_training.evaluate_uri == scored
    assert by_training.outcomes["tasks"]["kobest_copa"]["acc"] == {"0": 1.0}
    storage.delete(storage.join(root.uri, "data-1"))
    assert collect([scored], None)[0].data is None
    storage.delete(trained)
    assert collect([scored], None)[0].train is None


def test_what_is_not_there_or_not_finished(root: Any) -> None:
    trained = root.train("train-aaaa", root.data("data-1"))
    storage.write_text(storage.join(root.uri, "train-aaab", "metrics.jsonl"), "")
    for named, said in (
        ("train-aaac", r"is neither a train .* \(did you mean 'train-aaaa'\?\)\nfinished there: train-aaaa"),
        ("train-aaab", r"train-aaab is not finished, so it has no manifest.json \(did you mean 'train-aaaa'\?\)"),
        ("data-1", r"is a data prefix: a report compares train and evaluate prefixes"),
    ):
        with pytest.raises(StorageError, match=said):
            collect([named], root.uri)
    storage.delete(trained)
    with pytest.raises(StorageError, match="run `kit19 train` again to go on"):
        collect(["train-aaab"], root.uri)
    with pytest.raises(StorageError, match="no run is named and no root is set"):
        collect([], None)


def test_a_training_under_way_is_shown_as_far_as_it_is(root: Any) -> None:
    data = root.data("data-1")
    uri = storage.join(root.uri, "train-cccc")
    start: Any = {
        "stage": "train",
        "version": 2,
        "data": data,
        "prompt": "kullm",
        "seed": 19,
        "config": {},
        "steps": 900,
    }
    run_start.write(uri, start)
    (begun,) = collect([uri], None)
    assert begun.name == "train-cccc (step 0 so far)" and begun.lines == []
    lines = [
        {"step": 0, "validation_loss": 9.0},
        {"step": 400, "loss": 4.0, "validation_loss": 5.0, "tokens_per_second": 8},
    ]
    storage.write_text(f"{uri}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    (found,) = collect([uri], None)
    assert found.name == "train-cccc (step 400 so far)"
    text = page.markdown(comparison.compare([found]))
    assert "9.000 -> 5.000" in text and "| 900 |" in text
    root.train("train-aaaa", data)
    assert [run.name for run in collect([], root.uri)] == ["train-aaaa"]  # a root stands for what is finished
