"""`kit19 data` in a process of its own, to be disturbed, and what it leaves compared with a build nobody touched."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kit19_ray.io import storage

WORDS = [
    "data.verify=false",
    "data.tasks=[nsmc,apeach,sae4k]",
    "data.quota=40",
    "data.validation=5",
    "data.tokenizer.vocab_size=600",
    "data.seq_len=192",
    "data.prompt=koalpaca",
    "data.cpus=2",
]
AT_WORK = " -> "  # of the line that a build says before it starts Ray


class Started:
    """A build at work.

    Args:
        log: file of its output.
        words: overrides behind those of every drill.
        environment: variables of its own; None takes one away.
    """

    def __init__(self, root: str | Path, log: Path, *words: str, **environment: str | None) -> None:
        self._log = log
        known = {name: value for name, value in os.environ.items() if name not in environment | {"RAY_ADDRESS": None}}
        command = [sys.executable, "-m", "kit19_ray", "data", f"root={root}", "data.sources=samples", *WORDS, *words]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=known | {name: value for name, value in environment.items() if value is not None},
            )

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def until(self, reached: str | Callable[[], object], seconds: float = 300) -> None:
        """Waits until the build has said a text or something is so; returns too when the build is over before."""
        end = time.monotonic() + seconds
        while self._process.poll() is None and not (reached in self.said() if isinstance(reached, str) else reached()):
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)

    def over_within(self, seconds: float) -> bool:
        """Whether the build ends by itself in that time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL of the build and of all that it started."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def ends(self, code: int = 0) -> str:
        """Waits for its end and for its exit code; what it said."""
        try:
            found = self._process.wait(500)
        finally:
            if self._process.poll() is None:
                self.kill()
        assert found == code, self.said()
        return self.said()

    def refused(self, *named: str) -> str:
        """Its one message, which names all of these; it ended with the exit code of what a user can mend."""
        said = self.ends(2)
        errors = re.findall(r"^error: .*(?:\n.*)*", said, re.MULTILINE)
        assert len(errors) == 1 and "Traceback" not in said, said
        assert all(name in errors[0] for name in named), said
        return str(errors[0])


def files(root: str | Path) -> dict[str, bytes]:
    """Every file below a root."""
    return {info.path: storage.read_bytes(f"{root}/{info.path}") for info in storage.list_files(str(root))}


def differences(root: str | Path, wanted: dict[str, bytes]) -> list[str]:
    """Files that are too many, absent or other than wanted."""
    found = files(root)
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def finished(root: str | Path) -> list[str]:
    """The data prefixes below a root that say they are whole."""
    return [info.path for info in storage.list_files(str(root)) if re.fullmatch(r"data-\w+/manifest.json", info.path)]
