"""Ends a worker that makes no progress, after it has written where it stands.

Every rank has one. When a rank hangs, the others hang in the next collective with it, so all of them write their stacks
and end; Ray Train starts the workers again, and counts it as a failure.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import statistics
import sys
import threading
import time
import traceback
from collections import deque

from kit19_ray.errors import StorageError
from kit19_ray.io import storage

STACKS = "stacks"  # folder in the run's prefix
_TIMES_MEDIAN = 20  # a step that takes so many times the median hangs
_LAST_WORD_SECONDS = 60.0  # when the interpreter itself is stuck, C code ends the process this much later
EXIT_HUNG = 86


class Watchdog:
    """Counts the time since the last sign of progress.

    Args:
        seconds: without a sign for this long, and 20 times the median step, the worker hangs.
    """

    def __init__(self, out: str, rank: int, seconds: float) -> None:
        self._out, self._rank, self._least = out, rank, seconds
        self._steps: deque[float] = deque(maxlen=50)
        self._last, self._where = time.monotonic(), "starting"
        self._allowed = seconds
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begins to count."""
        self._thread.start()
        self.progress("starting")

    def progress(self, where: str, allowed: float | None = None) -> None:
        """A sign of progress; what comes next is `where`.

        Args:
            allowed: seconds it may take, where it is no step.
        """
        now = time.monotonic()
        if where == self._where == "step":
            self._steps.append(now - self._last)
        self._last, self._where = now, where
        median = statistics.median(self._steps) if self._steps else 0.0
        self._allowed = max(self._least, _TIMES_MEDIAN * median, allowed or 0.0)
        if not self._closed.is_set():
            faulthandler.dump_traceback_later(self._allowed + _LAST_WORD_SECONDS, exit=True, file=sys.__stderr__ or 2)

    def close(self) -> None:
        """Counts no more."""
        self._closed.set()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._closed.wait(min(5.0, self._least / 4)):
            waited = time.monotonic() - self._last
            if waited > self._allowed:
                self._end(waited)

    def _end(self, waited: float) -> None:
        text = f"worker {self._rank}: no progress for {waited:.0f} s, last: {self._where}\n\n{stacks()}"
        print(text, file=sys.__stderr__, flush=True)  # into the worker's log, whatever becomes of the store
        with contextlib.suppress(StorageError):
            storage.write_text(storage.join(self._out, STACKS, f"worker-{self._rank:05d}.txt"), text)
        os._exit(EXIT_HUNG)


def stacks() -> str:
    """Where every thread of this process stands."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)
