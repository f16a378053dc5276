from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.errors import StorageError
from kit19_ray.io import storage
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
