"""The licence gate."""

from __future__ import annotations

import pytest

from kit19_ray.data import licences
from kit19_ray.errors import DataError
from kit19_ray.tasks import load_tasks


def test_what_each_policy_leaves_out() -> None:
    tasks = load_tasks()
    assert licences.excluded(tasks, "all", None) == {}
    assert set(licences.excluded(tasks, "no-derivatives-excluded", None)) == {"unsmile"}
    commercial = licences.excluded(tasks, "commercial", None)
    assert set(commercial) == {"unsmile", "hatescore", "lbox_summarization", "math_korean"}
    assert commercial["unsmile"] == (
        "data.licence_policy=commercial: its licence (CC BY-NC-ND 4.0) does not allow derivatives and commercial use"
    )


def test_a_named_task_is_refused_instead_of_left_out() -> None:
    with pytest.raises(DataError, match=r"data.licence_policy=commercial: task 'unsmile'.*CC BY-NC-ND") as caught:
        licences.excluded(load_tasks(["nsmc", "unsmile"]), "commercial", ["nsmc", "unsmile"])
    assert "take it out of data.tasks" in caught.value.hint


def test_the_notice_names_each_restricted_source_once() -> None:
    lines = licences.notice(load_tasks())
    assert len(lines) == 4
    assert any("Korean UnSmile (CC BY-NC-ND 4.0) forbids commercial use and derivatives" in line for line in lines)
    assert licences.notice(load_tasks(["nsmc"])) == []
