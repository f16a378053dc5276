"""What the driver says while workers train, and while nothing comes from them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import metrics_log
from kit19_ray.train import progress
from kit19_ray.train.spec import TrainSpec
from tests.train.ranks import spec_of


@pytest.fixture
def spec(make_config: Any, data_prefix: str, tmp_path: Path) -> TrainSpec:
    return spec_of(make_config(f"file://{tmp_path}", max_steps=4, save_every=2), data_prefix)


def test_a_line_in_words() -> None:
    line = {"step": 1, "loss": 1.5, "validation_loss": 1.25, "tokens_per_second": 1234.5, "eta_seconds": 61.2}
    assert progress.describe(line) == "loss 1.5000, validation loss 1.2500, 1,234 tokens/s, 61 s left"
    assert progress.describe({"step": 1, "loss": None, "mfu": 0.456}) == "MFU 45.6%"


def test_without_a_terminal_the_newest_line_and_every_event_are_said(
    spec: TrainSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics_log.MetricsLog(spec.out, None, metrics_log.EVENTS).append({"step": 0, "time": 1.0, "text": "of old"})
    with progress.watching(spec):
        now = time.time()
        metrics_log.MetricsLog(spec.out, 0).append({"step": 4, "loss": 2.0, "time": now})
        metrics_log.MetricsLog(spec.out, None, metrics_log.EVENTS).append({"step": 2, "time": now, "text": "a spike"})
    assert capsys.readouterr().err == "train: a spike\ntrain: step 4/4, loss 2.0000\n"


def test_silence_is_explained(
    spec: TrainSpec, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.0)
    with progress.watching(spec):
        pass
    assert "train: waiting for 2 workers with 1 CPUs each" in capsys.readouterr().err
    at = {"phase": "step", "step": 2, "time": time.time()}
    assert progress.waiting(spec, at, 40.0) == "step 3/4 is running"  # type: ignore[arg-type]
    assert progress.waiting(spec, at | {"phase": "exporting"}, 40.0) == "exporting, after step 2/4"  # type: ignore[arg-type]
    silent = progress.waiting(spec, at | {"time": time.time() - 60}, 40.0)  # type: ignore[arg-type]
    assert silent == "no word from the workers for 60 s: they are being started again, or the store is out"
