from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.artifacts import manifest
from kit19_ray.io import storage
from kit19_ray.report import page
from kit19_ray.report.comparison import compare, config_differences, paired_stderr
from kit19_ray.report.runs import ComparedRun, collect


def compared(root: Any, *named: str) -> dict[str, Any]:
    return compare(collect(list(named), root.uri))


def test_the_config_differs_where_it_differs(root: Any) -> None:
    root.train("train-aaaa", root.data("data-1"), epochs=2.0)
    root.train("train-bbbb", root.data("data-2", quota=99), model={"layers": 3})
    found = compared(root, "train-aaaa", "train-bbbb")
    assert found["config"] == {"data.quota": [30, 99], "train.epochs": [2.0, 1.0], "train.model.layers": [2, 3]}
    assert [run["data"] for run in found["runs"]] == ["data-1", "data-2"]
    assert found["runs"][0]["examples"] == 60
    assert "differences" not in found and found["scores"] == []


def test_a_run_without_a_part_does_not_differ_in_it() -> None:
    train = {"config": {"epochs": 1.0}, "seed": 19}
    assert config_differences([ComparedRun("a", train=train), ComparedRun("b"), ComparedRun("c", train=train)]) == {}


def test_two_runs_over_the_same_documents_are_paired(root: Any) -> None:
    data = root.data("data-1")
    before = {str(i): float(i % 2) for i in range(10)}
    after = before | {"0": 1.0, "2": 1.0}
    root.evaluate("evaluate-1", root.train("train-aaaa", data), correct=before)
    root.evaluate("evaluate-2", root.train("train-bbbb", data), correct=after, acc=0.8)
    found = compared(root, "train-aaaa", "train-bbbb")
    by_metric = {(d["section"], d["task"], d["metric"]): d for d in found["differences"]}
    acc = by_metric["tasks", "kobest_copa", "acc"]
    assert acc["kind"] == "paired" and acc["n"] == 10
    assert acc["difference"] == pytest.approx(0.2)
    assert acc["stderr"] == pytest.approx(np.std([1, 0, 1, 0, 0, 0, 0, 0, 0, 0], ddof=1) / math.sqrt(10))
    assert by_metric["tasks", "kobest_copa", "macro_f1"]["kind"] == "no error known"
    held_out = by_metric["held_out", "nsmc", "accuracy"]
    assert held_out["kind"] == "unpaired" and held_out["stderr"] == pytest.approx(0.04 * math.sqrt(2))


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"limit": 7}, "limit"), ({"num_fewshot": 5}, "few-shot"), ({"version": 2.0}, "task version")],
)
def test_scores_measured_differently_are_marked_and_not_compared(root: Any, changed: dict[str, Any], key: str) -> None:
    data = root.data("data-1")
    root.evaluate("evaluate-1", root.train("train-aaaa", data))
    root.evaluate("evaluate-2", root.train("train-bbbb", data), **changed)
    found = compared(root, "train-aaaa", "train-bbbb")
    first, second = found["scores"][0]["cells"]
    assert set(first["differs_in"]) == {key} == set(second["differs_in"])
    assert first["differs_in"] != second["differs_in"]
    assert found["differences"][0]["kind"] == "not comparable"


def test_guesses_stand_with_accuracies_of_held_out_rows_alone(root: Any) -> None:
    nsmc = {"accuracy_norm": 0.6, "macro_f1": 0.5, "majority": 0.51, "lexical": 0.6}
    root.evaluate("evaluate-1", "organisation/base", nsmc=nsmc)
    cells = {row["metric"]: row["cells"][0] for row in compared(root, "evaluate-1")["held_out"]}
    assert (cells["accuracy"]["majority"], cells["accuracy"]["lexical"]) == (0.51, 0.6)
    assert "lexical" in cells["accuracy_norm"] and "lexical" not in cells["macro_f1"]


def test_what_is_unlike_the_paper(root: Any) -> None:
    root.evaluate("evaluate-1", "organisation/model")
    root.evaluate("evaluate-2", "organisation/model", n=7, limit=7, num_fewshot=5)
    like, unlike = compared(root, "evaluate-1", "evaluate-2")["scores"][0]["cells"]
    assert like["unlike_paper"] == []
    assert unlike["unlike_paper"] == ["5-shot", "7 of 1,000 documents"]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_the_paired_error_is_that_of_the_differences(pairs: list[tuple[bool, bool]]) -> None:
    first, second = ({str(i): float(pair[side]) for i, pair in enumerate(pairs)} for side in (0, 1))
    deltas = [float(b) - float(a) for a, b in pairs]
    assert paired_stderr(first, second) == pytest.approx(np.std(deltas, ddof=1) / math.sqrt(len(deltas)))
    assert paired_stderr({"0": 1.0}, {"0": 0.0}) == 0.0


def test_an_f1_over_the_same_documents_is_paired(root: Any) -> None:
    import json

    from kit19_ray.io import storage

    data = root.data("data-1")
    for name, wrong in (("1", 6), ("2", 0)):
        uri = root.evaluate(f"evaluate-{name}", root.train(f"train-{name}", data), macro_f1=1 - wrong / 40)
        pairs = {str(i): [i % 2, 1 - i % 2 if i < wrong else i % 2] for i in range(40)}
        outcomes = {"tasks": {"kobest_copa": {"macro_f1": pairs}}, "held_out": {}}
        storage.write_text(storage.join(uri, "outcomes.json"), json.dumps(outcomes))
    found = compared(root, "train-1", "train-2")
    (f1,) = [d for d in found["differences"] if d["metric"] == "macro_f1"]
    assert f1["kind"] == "paired" and f1["difference"] == pytest.approx(0.15)
    assert f1["interval"][0] > 0 and f1["p"] < 0.05 and f1["stderr"] > 0


def test_of_several_runs_each_tuned_one_stands_against_its_base(root: Any) -> None:
    data = root.data("data-1")
    root.evaluate("evaluate-1", "organisation/base", acc=0.5)
    root.evaluate("evaluate-2", root.train("train-aaaa", data, model={"name": "organisation/base"}), acc=0.7)
    root.evaluate("evaluate-3", root.train("train-bbbb", data, model={"name": "organisation/other"}))
    found = compared(root, "evaluate-1", "evaluate-2", "evaluate-3")
    (pair,) = found["tuned"]
    assert (pair["base"], pair["tuned"]) == ("evaluate-1", "train-aaaa")
    acc = next(d for d in pair["differences"] if d["metric"] == "acc")
    assert acc["difference"] == pytest.approx(0.2) and acc["kind"] == "unpaired"
    assert "differences" not in found


def judged(root: Any, name: str, value: float, model: str = "judge-1", metric: str = "score") -> str:
    """An evaluation of open questions alone."""
    uri = storage.join(root.uri, name)
    part = {"n": 4, "unjudged": 0, metric: value, "stderr": {metric: 0.5}, "interval": {metric: [value - 1, value + 1]}}
    scores = {"model": f"organisation/{name}", "tasks": {}, "held_out": {}, "judge": {"logickor": part}}
    storage.write_text(storage.join(uri, "scores.json"), json.dumps(scores))
    outcomes = {"judge": {"logickor": {metric: {f"{n}.1": value + n % 2 - 0.5 for n in range(4)}}}}
    storage.write_text(storage.join(uri, "outcomes.json"), json.dumps(outcomes))
    made = {"evaluate": {"judge": {"model": model, "against": None}}, "questions": {"/q/logickor.jsonl": "e" * 64}}
    manifest.commit(uri, {"stage": "evaluate", "scores": "scores.json", "model": scores["model"], **made})
    return uri


def test_a_judges_grades_are_compared_where_the_judge_is_the_same(root: Any) -> None:
    judged(root, "evaluate-1", 6.0)
    judged(root, "evaluate-2", 7.5)
    found = compared(root, "evaluate-1", "evaluate-2")
    (row,) = found["judge"]
    assert [cell["value"] for cell in row["cells"]] == [0.6, 0.75]
    assert row["cells"][0]["stderr"] == 0.05 and row["cells"][0]["interval"] == [0.5, 0.7]
    (difference,) = found["differences"]
    assert (difference["kind"], difference["n"]) == ("paired", 4)
    assert difference["difference"] == pytest.approx(0.15)
    text = page.markdown(found)
    assert "| logickor | score | 60.00 ± 5.00 | 75.00 ± 5.00 |" in text
    assert "| logickor (judged) | score | +15.00" in text
    judged(root, "evaluate-3", 7.5, model="judge-2")
    other = compared(root, "evaluate-1", "evaluate-3")
    assert other["differences"][0]["kind"] == "not comparable"
    assert other["judge"][0]["cells"][1]["differs_in"] == {"judge": "judge-2"}
    judged(root, "evaluate-4", 0.25, metric="win")
    assert compared(root, "evaluate-4")["judge"][0]["cells"][0]["value"] == 0.25
