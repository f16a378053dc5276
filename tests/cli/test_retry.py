"""A stage tried again on the same cluster: how often, and with what exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit19_ray.cli import retry


def counting(file: Path, code: str) -> list[str]:
    """A command that adds a character to `file` and then runs `code`, which may use `tries`."""
    script = (
        f"import os, sys, signal; f = open({str(file)!r}, 'a'); f.write('x'); f.close(); "
        f"tries = len(open({str(file)!r}).read()); {code}"
    )
    return [sys.executable, "-c", script]


@pytest.mark.parametrize(
    ("code", "ran", "ended"),
    [
        ("sys.exit(0)", 1, 0),
        ("sys.exit(0 if tries == 2 else 1)", 2, 0),
        ("sys.exit(1)", 3, 1),
        ("sys.exit(2)", 1, 2),
        ("sys.exit(2 if tries == 2 else 1)", 2, 2),
        ("os.kill(os.getpid(), signal.SIGKILL)", 3, 137),
    ],
)
def test_only_what_may_pass_is_tried_again(tmp_path: Path, code: str, ran: int, ended: int) -> None:
    file = tmp_path / "tries"
    assert retry.run(counting(file, code), 2, pause_seconds=0) == ended
    assert len(file.read_text()) == ran


def test_sigterm_ends_the_stage_and_is_no_reason_to_try_again(tmp_path: Path) -> None:
    file = tmp_path / "tries"
    code = (
        "import sys; from kit19_ray.cli import retry; "
        f"sys.exit(retry.run({counting(file, 'import time; time.sleep(60)')!r}, 3, 0))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while not file.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 128 + signal.SIGTERM and file.read_text() == "x"


def test_words_without_a_number_say_how_to_call_it() -> None:
    done = subprocess.run([sys.executable, "-m", "kit19_ray.cli.retry", "train"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: python -m kit19_ray.cli.retry NUMBER VERB" in done.stderr


def test_the_words_become_a_kit19_command() -> None:
    words = [sys.executable, "-m", "kit19_ray.cli.retry", "1", "train", "--config", "/no/such/file.yaml"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "/no/such/file.yaml: no such file" in done.stderr
