"""metrics.jsonl: lines are seen, a resumed run takes back what it makes again, a torn line harms nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.artifacts import metrics_log
from kit19_ray.io import storage
from kit19_ray.train import progress


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


def test_a_line_in_words() -> None:
    line = {"step": 1, "loss": 1.5, "validation_loss": 1.25, "tokens_per_second": 1234.5, "eta_seconds": 61.2}
    assert progress.describe(line) == "loss 1.5000, validation loss 1.2500, 1,234 tokens/s, 61 s left"


def test_without_a_terminal_the_newest_line_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import time

    root = f"file://{tmp_path}"
    with progress.watching(root, steps=4):
        log = metrics_log.MetricsLog(root, step=0)
        log.append({"step": 4, "loss": 2.0, "time": time.time()})
    assert capsys.readouterr().err == "train: step 4/4, loss 2.0000\n"
