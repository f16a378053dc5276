"""The pointer a stage leaves: only where it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray import pointer


def test_a_stage_says_where_it_writes_to_and_when_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = f"file://{tmp_path}/kitruns/default/demo/train-1.json"
    assert pointer.read(target) is None
    monkeypatch.setenv(pointer.VARIABLE, target)
    pointer.leave("train", "s3://bucket/train-1", finished=False)
    assert pointer.read(target) == ("s3://bucket/train-1", False)
    pointer.leave("train", "s3://bucket/train-1", finished=True)
    assert pointer.read(target) == ("s3://bucket/train-1", True)


def test_nothing_is_written_where_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pointer.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    pointer.leave("data", "s3://bucket/data-1", finished=True)
    assert list(tmp_path.iterdir()) == []
