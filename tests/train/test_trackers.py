"""Trackers: a missing package is named; TensorBoard's files are there; a broken tracker costs no line."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import metrics_log
from kit19_ray.errors import TrainError
from kit19_ray.train import trackers
from kit19_ray.train.metrics_writer import MetricsWriter


class Broken:
    name = "broken"

    def log(self, line: dict[str, Any]) -> None:
        raise ConnectionError("the tracker is out")

    def close(self) -> None:
        raise AssertionError("it is called no more")


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(TrainError, match="wandb is not installed") as caught:
        trackers.require(["wandb"])
    assert "kit19-ray[wandb]" in caught.value.hint
    with pytest.raises(TrainError, match="peft is not installed"):
        trackers.require([], adapters=True)


def test_a_tracker_that_fails_costs_no_line(tmp_path: Path) -> None:
    out = f"file://{tmp_path}/train-x"
    writer = MetricsWriter(out, 0, lambda: [Broken(), trackers.TensorBoard(out, "ab")], "unused")
    for step in (1, 2):
        writer.line({"step": step, "loss": 1.0 / step, "time": float(step)})
    writer.event("something", 2)
    writer.status("step", 2)
    writer.close(60)
    assert [line["step"] for line in metrics_log.read(out)] == [1, 2]
    assert metrics_log.read(out, metrics_log.EVENTS)[0]["text"] == "something"
    status = metrics_log.read_status(out)
    assert status is not None and (status["phase"], status["step"]) == ("step", 2)
    (events,) = (tmp_path / "train-x" / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_an_address_with_a_password_is_never_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2secret@127.0.0.1:9")
    monkeypatch.setenv("WANDB_BASE_URL", "http://me:hunter2secret@127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")

    def refuse(*_: object, **__: object) -> None:
        said = "API request to http://me:hunter2secret@127.0.0.1:9/api failed, key 0123456789abcdef, hunter2secret"
        raise ConnectionError(said)

    for module, made in {"mlflow": {}, "mlflow.tracking": {"MlflowClient": refuse}, "wandb": {"init": refuse}}.items():
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**made))
    out = f"file://{tmp_path}/train-x"
    writer = MetricsWriter(out, 0, lambda: trackers.make([name], out, "ab", {}), "unused")
    writer.close(60)
    said = capsys.readouterr().err
    assert "no tracker: API request to http://127.0.0.1:9/api failed" in said
    assert "hunter2" not in said and "0123456789" not in said


def test_what_goes_to_a_tracker_holds_no_secret() -> None:
    assert trackers._flat({"a": {"url": "http://me:hunter2@host/x"}}) == {"a.url": "http://host/x"}


def test_gauges_are_ray_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.util.metrics

    told: list[tuple[str, float, dict[str, str]]] = []

    class Gauge:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            assert description and tag_keys == ("run",)
            self.name = name

        def set(self, value: float, tags: dict[str, str]) -> None:
            told.append((self.name, value, tags))

    monkeypatch.setattr(ray.util.metrics, "Gauge", Gauge)
    tracker = trackers.Prometheus("file:///runs/train-abc")
    tracker.log({"step": 3, "loss": 1.5, "grad_norm": float("nan"), "time": 1.0})
    tracker.close()
    assert told == [("kit19_train_loss", 1.5, {"run": "train-abc"}), ("kit19_train_step", 3.0, {"run": "train-abc"})]


def test_mlflow_finds_its_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs SQLAlchemy, which mlflow-skinny lacks
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "test")
    for step in (1, 2):  # the run goes on in another process
        tracker = trackers.MLflow("file:///runs/train-abc", {"model": {"name": "x"}})
        tracker.log({"step": step, "loss": 1.0 / step, "time": float(step)})
        tracker.close()
    client = MlflowClient()
    experiment = client.get_experiment_by_name("test")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "train-abc" and run.data.params == {"model.name": "x"}
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [1.0, 0.5]


def test_what_can_be_drawn() -> None:
    line = {"step": 1, "time": 2.0, "loss": 1.5, "grad_norm": float("inf"), "event": "x", "none": None}
    assert trackers.figures(line) == {"loss": 1.5}
    assert trackers.figures({"step": 1, "validation_loss_by_task": {"nsmc": 2.0}}) == {"validation_loss/nsmc": 2.0}


def test_wandb_keeps_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    tracker = trackers.WandB("file:///runs/train-abc", {"model": {"name": "x"}})
    tracker.log({"step": 1, "loss": 1.0, "time": 1.0})
    tracker.close()
    assert [path for path in (tmp_path / "wandb").iterdir() if path.name.endswith("train-abc")]
