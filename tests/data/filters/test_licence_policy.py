"""The licence gate."""

from __future__ import annotations

import pytest

from kit19_ray.data.filters import licence_policy
from kit19_ray.errors import DataError
from kit19_ray.tasks.task import load_tasks


def test_what_each_policy_leaves_out() -> None:
    tasks = load_tasks()
    assert licence_policy.excluded(tasks, "all", None) == {}
    assert set(licence_policy.excluded(tasks, "no-derivatives-excluded", None)) == {"unsmile"}
    commercial = licence_policy.excluded(tasks, "commercial", None)
    assert set(commercial) == {"unsmile", "hatescore", "lbox_summarization", "math_korean"}
    assert commercial["unsmile"] == (
        "data.licence_policy=commercial: its licence (CC BY-NC-ND 4.0) does not allow derivatives and commercial use"
    )


def test_a_named_task_is_refused_instead_of_left_out() -> None:
    with pytest.raises(DataError, match=r"data.licence_policy=commercial: task 'unsmile'.*CC BY-NC-ND") as caught:
        licence_policy.excluded(load_tasks(["nsmc", "unsmile"]), "commercial", ["nsmc", "unsmile"])
    assert "take it out of data.tasks" in caught.value.hint


def test_the_notice_names_each_restricted_source_once() -> None:
    lines = licence_policy.notice(load_tasks())
    assert len(lines) == 4
    assert any("Korean UnSmile (CC BY-NC-ND 4.0) forbids commercial use and derivatives" in line for line in lines)
    assert licence_policy.notice(load_tasks(["nsmc"])) == []
