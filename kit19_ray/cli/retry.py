"""A stage as the entrypoint of a job: `python -m kit19_ray.cli.retry 2 train --config FILE`.

Runs `python -m kit19_ray train --config FILE` and, when that fails, up to 2 times more on the same Ray cluster, where
it goes on from its checkpoint: the cluster need not be built again for a driver that died. A mistake of the user's
(exit 2) is not tried again. Exits as the last attempt did.

What it prints is kept beside (`driver_log`): a job's pods, and their logs, go when it ends.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from kit19_ray.cli.driver_log import DriverLog
from kit19_ray.errors import EXIT_DONE, EXIT_USER
from kit19_ray.utils.console import say

_PAUSE_SECONDS = 5.0


def run(command: Sequence[str], more: int, pause_seconds: float = _PAUSE_SECONDS, log: DriverLog | None = None) -> int:
    """The exit code of the last of at most 1 + `more` runs of `command`; SIGTERM is handed on and ends it.

    Args:
        log: gets what they print.
    """
    child: subprocess.Popen[bytes] | None = None
    ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True
        if child is not None:
            child.send_signal(number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        for attempt in range(more + 1):
            pipe = subprocess.PIPE if log else None
            child = subprocess.Popen(command, stdout=pipe, stderr=pipe)
            if log:
                log.copy(child)
            code = child.wait()
            if code in (EXIT_DONE, EXIT_USER) or ended or attempt == more:
                break
            text = f"ended with {code}; attempt {attempt + 2} of {more + 1} in {pause_seconds:g} seconds"
            say(text)
            if log:
                log.add(f"{text}\n".encode())
            time.sleep(pause_seconds)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 128 - code if code < 0 else code


def main(words: Sequence[str]) -> NoReturn:
    """Runs the words after the number as a kit19 command."""
    if len(words) < 2 or not words[0].isdigit():
        say("usage: python -m kit19_ray.cli.retry NUMBER VERB [WORD...]")
        sys.exit(EXIT_USER)
    with DriverLog.from_environment() as log:
        code = run([sys.executable, "-m", "kit19_ray", *words[1:]], int(words[0]), log=log if log.wanted else None)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
