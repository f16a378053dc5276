"""TensorBoard, Prometheus, MLflow and Weights & Biases. A run that goes on later goes on there under the same id."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.errors import TrainError
from kit19_ray.io import storage
from kit19_ray.redaction import redacted
from kit19_ray.train.metrics_writer import Tracker
from kit19_ray.utils.json_types import Json

_UPLOAD_SECONDS = 60.0


def require(names: list[str], adapters: bool = False, few_bits: Collection[str] = ()) -> None:
    """Refuses a tracker, or adapters, whose package is not installed, before any worker starts.

    Args:
        adapters: whether peft is needed.
        few_bits: keys of `train` that need bitsandbytes.

    Raises:
        TrainError: it is not.
    """
    from importlib.util import find_spec

    if adapters and find_spec("peft") is None:
        raise TrainError("train.lora.rank: peft is not installed", hint="pip install 'kit19-ray[lora]'")
    for key in few_bits if find_spec("bitsandbytes") is None else ():
        raise TrainError(f"train.{key}: bitsandbytes is not installed", hint="pip install 'kit19-ray[qlora]'")
    for name in names:
        if find_spec({"tensorboard": "tensorboardX", "prometheus": "ray"}.get(name, name)) is None:
            raise TrainError(
                f"train.trackers: {name} is not installed", hint=f"pip install 'kit19-ray[{name}]', or leave it out"
            )


def make(names: list[str], out: str, attempt: str, config: Json) -> list[Tracker]:
    """The trackers by name.

    Args:
        out: the run's prefix; its last part is the run's id everywhere.
        attempt: names this start of the workers.
        config: what the run's output depends on.
    """
    kinds: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(out, attempt),
        "prometheus": lambda: Prometheus(out),
        "mlflow": lambda: MLflow(out, config),
        "wandb": lambda: WandB(out, config),
    }
    return [kinds[name]() for name in names]


def figures(line: MetricsLine) -> dict[str, float]:
    """What of a line can be drawn; a task's loss is `validation_loss/<task>`."""
    tasks = {f"validation_loss/{task}": loss for task, loss in line.get("validation_loss_by_task", {}).items()}
    return {
        name: float(value)
        for name, value in {**line, **tasks}.items()
        if isinstance(value, int | float) and name not in ("step", "steps", "time") and math.isfinite(value)
    }


class TensorBoard:
    """Event files below `<run>/tensorboard/`, one a start; on S3 they are sent once a minute."""

    name = "tensorboard"

    def __init__(self, out: str, attempt: str) -> None:
        from tensorboardX import SummaryWriter

        self._uri = storage.join(out, "tensorboard")
        local = storage.local_path(self._uri)
        self._folder = local or Path(tempfile.mkdtemp(prefix="kit19-tensorboard-"))
        self._remote, self._sent = local is None, time.monotonic()
        self._writer = SummaryWriter(str(self._folder), filename_suffix=f".{attempt}", write_to_disk=True)

    def log(self, line: MetricsLine) -> None:
        """Takes the line of a step."""
        for name, value in figures(line).items():
            self._writer.add_scalar(name, value, line["step"], walltime=line.get("time"))
        if self._remote and time.monotonic() - self._sent > _UPLOAD_SECONDS:
            self._send()

    def _send(self) -> None:
        self._writer.flush()
        storage.upload_dir(self._folder, self._uri)
        self._sent = time.monotonic()

    def close(self) -> None:
        """Makes everything seen."""
        self._writer.close()
        if self._remote:
            storage.upload_dir(self._folder, self._uri)
            shutil.rmtree(self._folder)


class Prometheus:
    """Gauges `ray_kit19_train_<figure>` with the run's name, beside Ray's own metrics where Prometheus reads them."""

    name = "prometheus"

    def __init__(self, out: str) -> None:
        self._run = out.rsplit("/", 1)[1]
        self._gauges: dict[str, Any] = {}

    def log(self, line: MetricsLine) -> None:
        """Takes the line of a step."""
        for name, value in (figures(line) | {"step": float(line["step"])}).items():
            self._gauge(name).set(value, tags={"run": self._run})

    def _gauge(self, name: str) -> Any:
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            made = Gauge(f"kit19_train_{name.replace('/', '_')}", "See metrics.jsonl of the run.", tag_keys=("run",))
            self._gauges[name] = made
        return self._gauges[name]

    def close(self) -> None:
        """Ray forgets them with the worker."""


class MLflow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME (kit19) at MLFLOW_TRACKING_URI, found again by its name."""

    name = "mlflow"

    def __init__(self, out: str, config: Json) -> None:
        import os

        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "kit19")
        found = self._client.get_experiment_by_name(experiment)
        place = found.experiment_id if found else self._client.create_experiment(experiment)
        name = out.rsplit("/", 1)[1]
        runs = self._client.search_runs([place], f"attributes.run_name = '{name}'")
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            self._run = self._client.create_run(place, run_name=name, tags={"kit19.uri": out}).info.run_id
            for key, value in _flat(config).items():
                self._client.log_param(self._run, key, value)

    def log(self, line: MetricsLine) -> None:
        """Takes the line of a step."""
        from mlflow.entities import Metric

        at = int(1000 * line["time"])
        metrics = [Metric(name, value, at, line["step"]) for name, value in figures(line).items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """Marks the run as ended; one that goes on opens it again."""
        self._client.set_terminated(self._run)


class WandB:
    """A run of the project WANDB_PROJECT (kit19) whose id is the prefix's name."""

    name = "wandb"

    def __init__(self, out: str, config: Json) -> None:
        import os

        import wandb

        name = out.rsplit("/", 1)[1]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "kit19"), id=name, name=name, resume="allow", config=_flat(config),
            dir=os.environ.get("WANDB_DIR") or tempfile.gettempdir(),
        )  # fmt: skip

    def log(self, line: MetricsLine) -> None:
        """Takes the line of a step."""
        self._run.log(figures(line), step=line["step"])

    def close(self) -> None:
        """Makes everything seen."""
        self._run.finish()


def _flat(config: Json, prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = redacted(str(value))[:250]
    return out
