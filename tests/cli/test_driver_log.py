"""What a stage prints, kept where it outlives the pod."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kit19_ray.cli.driver_log import DriverLog


def test_both_streams_go_on_and_are_kept_in_the_file_and_in_the_store(tmp_path: Path) -> None:
    file, uri = tmp_path / "driver.log", f"file://{tmp_path}/root/kitruns/ns/demo/train-1-0.log"
    env = os.environ | {"KIT19_DRIVER_LOG": str(file), "KIT19_DRIVER_LOG_URI": uri}
    words = [sys.executable, "-m", "kit19_ray.cli.retry", "0", "train", "--config", "/no/such/file.yaml"]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 2 and "/no/such/file.yaml: no such file" in done.stderr
    kept = Path(uri.removeprefix("file://")).read_text()
    assert kept == file.read_text() == done.stderr


def test_what_was_tried_again_is_in_the_log(tmp_path: Path) -> None:
    script = (
        "import sys; from kit19_ray.cli import retry; from kit19_ray.cli.driver_log import DriverLog\n"
        f"with DriverLog({str(tmp_path / 'log')!r}, None) as log:\n"
        "    code = retry.run([sys.executable, '-c', 'print(1); raise SystemExit(3)'], 1, 0, log)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 3 and done.stdout == "1\n1\n"
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["1", "ended with 3; attempt 2 of 2 in 0 seconds", "1"]


def test_a_child_that_leaves_its_streams_open_does_not_hold_the_stage(tmp_path: Path) -> None:
    script = "import subprocess, sys; print('over'); subprocess.Popen(['sleep', '30'])"
    with DriverLog(str(tmp_path / "log"), None) as log:
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        log.copy(child)
    assert child.returncode == 0 and (tmp_path / "log").read_text() == "over\n"


def test_a_store_that_refuses_the_log_is_said_and_does_not_end_the_stage(tmp_path: Path, capsys: object) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with DriverLog(None, f"file://{tmp_path}/taken/log") as log:
        log.add(b"line\n")
    said = capsys.readouterr().err  # type: ignore[attr-defined]
    assert "the log cannot be kept at" in said
