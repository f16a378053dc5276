"""What is worth knowing in a job's log, whatever the root is called."""

from __future__ import annotations

import pytest

from kit19_ray.jobs.log_cursor import Lines


@pytest.mark.parametrize("root", ["file:///data/운영 기록 #1", "s3://bucket/my runs?x=1", "file:///plain"])
def test_a_root_may_hold_spaces(root: str) -> None:
    lines = Lines()
    lines.feed(f"train: 3 steps on 1 CPU worker -> {root}/train-0a1b2c\nnoise\n{root}/train-0a1b2c\n")
    assert (lines.trains, lines.uri) == (f"{root}/train-0a1b2c", f"{root}/train-0a1b2c")
    lines.feed("see s3://bucket/x\n")  # in the middle of a line it is no output
    assert lines.uri == f"{root}/train-0a1b2c"
