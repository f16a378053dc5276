"""Standard output and error as they are in the field: closed, full, ASCII, shared with what Ray prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "kit19_ray"]


def run(command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A line of the shell, in which $kit19 is the command."""
    environment = os.environ | {"kit19": " ".join(COMMAND)} | variables
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, timeout=120)


def test_a_reader_that_has_enough_is_no_fault() -> None:
    done = run("$kit19 tasks show nsmc data.sources=samples | head -n 1")
    assert (done.stdout, done.stderr) == (b"nsmc\n", b"")
    assert done.returncode in (0, 141)  # 141: SIGPIPE's number, as of `yes | head`
    closed = run("$kit19 tasks | true; exit ${PIPESTATUS[0]}")
    assert closed.stderr == b"" and closed.returncode in (0, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", ["tasks", "tasks --json", "config demo", "--help", "--version"])
def test_a_full_disk_is_named(words: str) -> None:
    done = run(f"$kit19 {words} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == b"error: the output: No space left on device; free some space and run it again\n"


def test_closed_streams_are_no_fault() -> None:
    assert run("$kit19 tasks >&-").returncode == 0
    told = run("$kit19 data 2>&-")
    assert (told.returncode, told.stdout, told.stderr) == (2, b"", b"")
    assert run("$kit19 data 2> /dev/full").returncode == 2


def test_a_terminal_of_ascii_or_cp949_shows_what_it_can() -> None:
    strict = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("$kit19 tasks show nsmc data.sources=samples", PYTHONIOENCODING="ascii", **strict)
    assert done.returncode == 0 and b"\\u" in done.stdout
    korean = run("$kit19 tasks show nsmc data.sources=samples", PYTHONIOENCODING="cp949")
    assert korean.returncode == 0 and "긍정".encode("cp949") in korean.stdout
    wrong = run("$kit19 data root=/r 데이터=1", PYTHONIOENCODING="ascii", **strict)
    assert wrong.returncode == 2 and b"1 mistake" in wrong.stderr and b"Traceback" not in wrong.stderr


def test_what_libraries_print_goes_to_stderr_once_a_verb_runs() -> None:
    code = (
        "import os, subprocess, sys\n"
        "from kit19_ray.utils import console\n"
        "console.reserve_stdout(); console.reserve_stdout()\n"
        "print('a library'); os.write(1, b'a worker\\n'); subprocess.run(['echo', 'a child'])\n"
        "console.write('the output')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "the output\n"
    assert sorted(done.stderr.splitlines()) == ["a child", "a library", "a worker"]
