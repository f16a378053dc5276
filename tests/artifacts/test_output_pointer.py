"""The pointer a stage leaves: only where it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.artifacts import output_pointer


def test_a_stage_says_where_it_writes_to_and_when_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = f"file://{tmp_path}/kitruns/default/demo/train-1.json"
    assert output_pointer.read(target) is None
    monkeypatch.setenv(output_pointer.VARIABLE, target)
    output_pointer.write("train", "s3://bucket/train-1", finished=False)
    assert output_pointer.read(target) == ("s3://bucket/train-1", False)
    output_pointer.write("train", "s3://bucket/train-1", finished=True)
    assert output_pointer.read(target) == ("s3://bucket/train-1", True)


def test_nothing_is_written_where_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(output_pointer.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    output_pointer.write("data", "s3://bucket/data-1", finished=True)
    assert list(tmp_path.iterdir()) == []
