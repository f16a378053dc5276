"""The gate: only a score that is there and high enough passes."""

from __future__ import annotations

import math

import pytest

from kit19_ray.artifacts import gate
from kit19_ray.config.schema import GateRule

SCORES = {"kobest_copa": {"acc": 0.61, "macro_f1": 0.6, "n": 1000.0}, "nsmc": {"acc": 0.9}}


def rules(*words: tuple[str, str, float]) -> list[GateRule]:
    return [GateRule(task=task, metric=metric, min=least) for task, metric, least in words]


def test_the_table_holds_both_kinds_of_tasks_and_only_numbers() -> None:
    scores = {
        "tasks": {"kobest_copa": {"acc": 0.5, "num_fewshot": 0, "alias": "copa", "ok": True}},
        "held_out": {"nsmc": {"acc": 1}},
    }
    assert gate.table(scores) == {"kobest_copa": {"acc": 0.5, "num_fewshot": 0.0}, "nsmc": {"acc": 1.0}}


def test_scores_at_the_bar_pass() -> None:
    assert gate.failures(SCORES, rules(("kobest_copa", "acc", 0.61), ("nsmc", "acc", 0.0))) == []


def test_each_rule_that_is_not_met_is_told() -> None:
    assert gate.failures(
        SCORES,
        rules(("kobest_copa", "acc", 0.7), ("kobest_cop", "acc", 0.1), ("nsmc", "macro_f1", 0.1)),
    ) == [
        "kobest_copa acc is 0.6100, the gate asks for 0.7",
        "kobest_cop was not scored (did you mean 'kobest_copa'?)",
        "nsmc has no macro_f1; it has acc",
    ]


def test_a_score_that_is_not_a_number_does_not_pass() -> None:
    assert gate.failures({"nsmc": {"acc": math.nan}}, rules(("nsmc", "acc", 0.0)))


def test_the_headline_is_the_mean_of_the_gate_or_of_every_acc() -> None:
    assert gate.headline(SCORES, rules(("kobest_copa", "macro_f1", 0.1))) == 0.6
    assert gate.headline(SCORES, []) == (0.61 + 0.9) / 2
    assert gate.headline({}, []) is None


def test_a_group_is_not_counted_beside_its_tasks_nor_a_task_twice() -> None:
    leaves = {"haerae_a": {"acc": 0.2, "n": 10}, "haerae_b": {"acc": 0.4, "n": 30}, "haerae_b@5": {"acc": 1.0, "n": 30}}
    groups = {"haerae": {"acc": 0.35, "n": 40, "tasks": ["haerae_a", "haerae_b"]}}
    table = gate.table({"tasks": leaves, "groups": groups})
    assert table["haerae"] == {"acc": 0.35, "n": 40, "tasks": 2}
    assert gate.headline(table, []) == pytest.approx(0.3)
    assert gate.headline(table, rules(("haerae", "acc", 0.3))) == 0.35, "a gate may name it"
