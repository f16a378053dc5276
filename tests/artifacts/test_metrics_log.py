"""metrics.jsonl: lines are seen, a resumed run takes back what it makes again, a torn line harms nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.artifacts import metrics_log
from kit19_ray.io import storage


def fill(root: str, steps: int) -> None:
    log = metrics_log.MetricsLog(root, step=0)
    for step in range(1, steps + 1):
        log.append({"step": step, "loss": 1 / step, "time": float(step)})
    log.flush()


def check(root: str) -> None:
    fill(root, 5)
    assert [line["step"] for line in metrics_log.read(root)] == [1, 2, 3, 4, 5]
    again = metrics_log.MetricsLog(root, step=3)
    assert [line["step"] for line in metrics_log.read(root)] == [1, 2, 3]
    again.append({"step": 4, "loss": 0.5, "time": 9.0})
    again.flush()
    newest = metrics_log.last(root)
    assert newest == {"step": 4, "loss": 0.5, "time": 9.0}


def test_on_disk(tmp_path: Path) -> None:
    check(f"file://{tmp_path}")


@pytest.mark.s3
def test_on_s3(s3_root: str) -> None:
    check(storage.join(s3_root, "train-x"))


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    root = f"file://{tmp_path}"
    fill(root, 2)
    with (tmp_path / metrics_log.NAME).open("a") as file:
        file.write('{"step": 3, "lo')
    assert [line["step"] for line in metrics_log.read(root)] == [1, 2]
    assert metrics_log.last(root) == {"step": 2, "loss": 0.5, "time": 2.0}
    metrics_log.MetricsLog(root, step=9).append({"step": 3, "time": 3.0})
    assert [line["step"] for line in metrics_log.read(root)] == [1, 2, 3]


def test_no_file_no_lines(tmp_path: Path) -> None:
    assert metrics_log.read(f"file://{tmp_path}") == []
    assert metrics_log.last(f"file://{tmp_path}") is None


def test_the_end_of_a_long_file_is_enough(tmp_path: Path) -> None:
    root = f"file://{tmp_path}"
    fill(root, 500)
    newest = metrics_log.last(root)
    assert newest is not None
    assert newest["step"] == 500


def test_a_figure_that_is_not_finite_is_null(tmp_path: Path) -> None:
    root = f"file://{tmp_path}"
    log = metrics_log.MetricsLog(root, step=0)
    log.append({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "time": 1.0})
    assert metrics_log.read(root) == [{"step": 1, "loss": None, "grad_norm": None, "time": 1.0}]
    assert "Infinity" not in (tmp_path / metrics_log.NAME).read_text()


def test_events_are_kept_over_all_starts_of_a_run(tmp_path: Path) -> None:
    root = f"file://{tmp_path}"
    for step in (9, 3):
        log = metrics_log.MetricsLog(root, None, metrics_log.EVENTS)
        log.append({"step": step, "time": 1.0, "text": f"goes on at {step}"})
    assert [line["step"] for line in metrics_log.read(root, metrics_log.EVENTS)] == [9, 3]


def test_a_status(tmp_path: Path) -> None:
    root = f"file://{tmp_path}"
    assert metrics_log.read_status(root) is None
    metrics_log.write_status(root, {"phase": "validating", "step": 3, "time": 1.5})
    assert metrics_log.read_status(root) == {"phase": "validating", "step": 3, "time": 1.5}
    (tmp_path / metrics_log.STATUS).write_text("{")
    assert metrics_log.read_status(root) is None
