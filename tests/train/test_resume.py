"""kill -9 of the driver in mid-training, the same command again: the same weights as a run nobody touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.artifacts import manifest, metrics_log
from kit19_ray.train import stage

pytestmark = pytest.mark.ray

STEPS = 60


def settings(make_config: Any, root: str) -> Any:
    """Checkpoints fall between log lines, so a resumed run must carry a half line's sums."""
    return make_config(root, zero_stage=2, max_steps=STEPS, save_every=6, eval_every=20, log_every=4)


@contextmanager
def driver(config: Any, folder: Path, data: str) -> Iterator[subprocess.Popen[bytes]]:
    """`kit19 train` in a process of its own, with a Ray cluster of its own; nothing of it outlives the block."""
    path = folder / "config.yaml"
    section = config.train.model_dump(exclude_unset=True) | {"data": data}
    path.write_text(yaml.safe_dump({"root": config.root, "train": section}))
    command = [sys.executable, "-m", "kit19_ray", "train", "--config", str(path)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["RAY_raylet_start_wait_time_s"] = "120"  # the machine may be busy
    with (folder / "stderr.txt").open("ab") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=folder, start_new_session=True
        )
    try:
        with process:
            yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def finished(config: Any, folder: Path, data: str) -> str:
    """Runs the driver to its end and returns the URI that it printed."""
    with driver(config, folder, data) as process:
        out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, (folder / "stderr.txt").read_text()
    return out.decode().splitlines()[-1]


def killed_in_the_middle(process: subprocess.Popen[bytes], uri: str, folder: Path) -> int:
    """Kills the driver after its first checkpoints; returns the step that the metrics had reached."""
    until = time.monotonic() + 400
    while time.monotonic() < until:
        newest = metrics_log.last(uri)
        if newest is not None and newest["step"] >= 20:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return int(newest["step"])
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"the driver was not in mid-training: {(folder / 'stderr.txt').read_text()}")


def test_a_killed_run_ends_as_if_nobody_had_touched_it(data_prefix: str, make_config: Any, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    config = settings(make_config, f"file://{cut}")
    uri = stage.uri(config, data_prefix)

    with driver(config, cut, data_prefix) as process:
        reached = killed_in_the_middle(process, uri, cut)
    killed_at = time.time()
    assert reached < STEPS
    assert manifest.read(uri) is None
    assert finished(config, cut, data_prefix) == uri
    whole_uri = finished(settings(make_config, f"file://{whole}"), whole, data_prefix)

    expected = manifest.require(whole_uri, "train")
    found = manifest.require(uri, "train")
    assert found["files"]["export/model.safetensors"] == expected["files"]["export/model.safetensors"]
    assert found["validation_loss_first"] == expected["validation_loss_first"]

    lines = [{k: line.get(k) for k in ("step", "loss", "validation_loss", "lr")} for line in metrics_log.read(uri)]
    theirs = metrics_log.read(whole_uri)
    assert lines == [{k: line.get(k) for k in ("step", "loss", "validation_loss", "lr")} for line in theirs]
    # The second driver went on and did not begin again: the first step's line is the first driver's.
    first = metrics_log.read(uri)[0]
    assert first["step"] == 0
    assert first["time"] < killed_at
