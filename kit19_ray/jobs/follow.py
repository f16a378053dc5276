"""Following a job to its end: the log in one piece, the status that counts, Ctrl-C.

The log is for reading; the exit code comes from the job's status alone. What is lost with a connection is read again,
nothing is printed twice, and a job whose end cannot be learned is never reported as done.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from kit19_ray.errors import EXIT_OURS
from kit19_ray.jobs.job import ENDED, EXIT_STOPPED, Gone, Job, JobOutcome, JobReport, Unreachable, exit_code
from kit19_ray.jobs.log_cursor import Lines, LogCursor
from kit19_ray.utils.console import say

POLL_SECONDS = 1.0
_LONGEST_PAUSE = 10.0  # seconds between attempts at a cluster that does not answer
_LOG_SECONDS = 30.0  # how long the end of the log is tried for once the job has ended
_SILENCE_SECONDS = 30.0  # the run's own metrics are shown when the log says nothing for so long


@dataclass(frozen=True)
class _Event:
    """What a thread, or the signal handler, tells the main one."""

    kind: Literal["log", "end", "report", "lost", "gone", "crash", "interrupt"]
    stream: int = 0
    text: str = ""
    report: JobReport | None = None
    error: Exception | None = None


class Follower:
    """Follows one job.

    Args:
        patience: seconds without an answer after which it is given up.
        newest: the newest line of a train prefix's metrics in words, or None; see `Lines.trains`.
        write: where the log goes; stderr when None.
    """

    def __init__(
        self,
        job: Job,
        patience: float = 600.0,
        newest: Callable[[str], str | None] | None = None,
        write: Callable[[str], Any] | None = None,
    ) -> None:
        self._job, self._patience, self._newest = job, patience, newest
        self._write = write or _to_stderr
        # SimpleQueue.put may be called from a signal handler.
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._cursor, self._lines = LogCursor(), Lines()
        self._stream, self._pause = 0, 0.0
        self._over = threading.Event()
        self._detail, self._at_line_start = "", True
        self._lost_since: float | None = None
        self._spoke = time.monotonic()
        self._stopping = False

    def run(self) -> JobOutcome:
        """Returns when the job has ended, when the user leaves it, or when it is lost."""
        self._start(self._poll)
        self._open()
        with self._interrupts():
            try:
                while True:
                    outcome = self._handle(self._events.get())
                    if outcome is not None:
                        return outcome
            finally:
                self._over.set()

    def _handle(self, event: _Event) -> JobOutcome | None:
        if event.kind == "log" and event.stream == self._stream:
            self._pause = 0.0
            self._show(event.text)
        elif event.kind == "end" and event.stream == self._stream:
            self._open(again=True)
        elif event.report is not None:
            return self._reported(event.report)
        elif event.error is not None:
            raise event.error
        elif event.kind == "lost":
            return self._lost(event.text)
        elif event.kind == "gone":
            return self._gone(event.text)
        elif event.kind == "interrupt":
            return self._interrupted()
        return None

    def _reported(self, report: JobReport) -> JobOutcome | None:
        if self._lost_since is not None:
            self._say(f"submit: the cluster answers again after {time.monotonic() - self._lost_since:.0f} s")
            self._lost_since = None
            self._open()  # the old stream may hang on a connection that is no more
        if report.detail and report.detail != self._detail:
            self._detail = report.detail
            self._say(f"submit: {self._job.id}: {report.detail}")
        if report.state in ENDED:
            missing = self._rest()
            return self._ended(report, missing)
        self._show_metrics()
        return None

    def _ended(self, report: JobReport, missing: str) -> JobOutcome:
        code = exit_code(report)
        said = {"SUCCEEDED": "succeeded", "STOPPED": "was stopped", "FAILED": "failed"}[report.state]
        if report.state == "FAILED" and report.exit_code is not None:
            said += f" with exit code {report.exit_code}"
        if missing:
            self._say(f"submit: the end of the log could not be read ({missing}); the status is certain")
        if (
            report.message
            and report.state == "FAILED"
            and (missing or report.exit_code is None or not self._cursor.seen)
        ):
            self._say(report.message.rstrip())  # the log does not end with it
        self._say(f"submit: {self._job.id} {said}")
        if self._lines.no_package:
            self._say("submit: the cluster's Python has no kit19-ray: start Ray from an image built from docker/")
        return JobOutcome(self._job.id, report.state, code, self._lines.uri, report.message)

    def _lost(self, why: str) -> JobOutcome | None:
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
            self._say(f"submit: the cluster does not answer ({why}); the job goes on, trying again")
        if now - self._lost_since < self._patience:
            return None
        follow, _ = self._job.commands()
        message = f"no answer for {self._patience:.0f} s; whether {self._job.id} goes on is not known"
        self._say(f"submit: {message}; follow it again with: {follow}")
        return JobOutcome(self._job.id, None, EXIT_OURS, message=message)

    def _gone(self, why: str) -> JobOutcome:
        if self._stopping:
            self._say(f"submit: {self._job.id} was stopped")
            return JobOutcome(self._job.id, "STOPPED", EXIT_STOPPED, self._lines.uri)
        message = f"the cluster does not know {self._job.id} any more: it was deleted, or the cluster was made anew"
        self._say(f"submit: {message} ({why}); how it ended is not known")
        return JobOutcome(self._job.id, None, EXIT_OURS, message=message)

    def _interrupted(self) -> JobOutcome | None:
        answer = "detach" if self._stopping else ask(self._job.id)
        if answer == "stop":
            self._stopping = True
            self._say(f"submit: stopping {self._job.id}; Ctrl-C again leaves it")
            self._start(self._stop)
            return None
        if answer == "follow":
            return None
        follow, stop = self._job.commands()
        self._say(f"submit: {self._job.id} goes on\n  follow it: {follow}\n  stop it:   {stop}")
        return JobOutcome(self._job.id, None, EXIT_STOPPED, message="detached")

    def _start(self, work: Callable[[], None]) -> None:
        """A thread of `work`; what it did not expect is raised in the main one."""

        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - raised again where it can be told
                self._events.put(_Event("crash", error=error))

        threading.Thread(target=guarded, daemon=True).start()

    def _stop(self) -> None:
        for pause in _pauses(self._over):
            try:
                self._job.stop()
                return
            except Gone:
                return  # the next poll says so
            except Unreachable:
                self._over.wait(pause)

    def _poll(self) -> None:
        pauses = _pauses(self._over)
        while not self._over.is_set():
            try:
                event = _Event("report", report=self._job.poll())
                pauses, pause = _pauses(self._over), POLL_SECONDS
            except Unreachable as error:
                event, pause = _Event("lost", text=str(error)), next(pauses, 0.0)
            except Gone as error:
                event, pause = _Event("gone", text=str(error)), POLL_SECONDS
            self._events.put(event)
            self._over.wait(pause)

    def _open(self, again: bool = False) -> None:
        """A new stream of the log; what the one before still sends is ignored."""
        self._stream += 1
        self._cursor.restart()
        self._pause = min(_LONGEST_PAUSE, max(POLL_SECONDS, 2 * self._pause)) if again else 0.0
        stream, pause = self._stream, self._pause
        self._start(lambda: self._tail(stream, pause))

    def _tail(self, stream: int, pause: float) -> None:
        if self._over.wait(pause):
            return
        with suppress(Unreachable, Gone):  # the poll says what it means
            self._job.tail(lambda text: self._events.put(_Event("log", stream, text)))
        self._events.put(_Event("end", stream))

    def _rest(self) -> str:
        """Prints what of the log was not seen yet; why it could not be read, or ""."""
        self._over.set()
        limit, pause = time.monotonic() + min(_LOG_SECONDS, self._patience), 0.5
        while True:
            try:
                text = self._job.log()
                break
            except Gone as error:
                return str(error)
            except Unreachable as error:
                if time.monotonic() + pause > limit:
                    return str(error)
                time.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause)
        self._cursor.restart()
        self._show(text)
        return ""

    def _show(self, text: str) -> None:
        new = self._cursor.feed(text)
        if new:
            self._spoke = time.monotonic()
            self._lines.feed(new)
            self._write(new)
            self._at_line_start = new.endswith("\n")

    def _say(self, text: str) -> None:
        if not self._at_line_start:
            self._write("\n")
            self._at_line_start = True
        say(text)

    def _show_metrics(self) -> None:
        if self._newest is None or self._lines.trains is None or time.monotonic() - self._spoke < _SILENCE_SECONDS:
            return
        self._spoke = time.monotonic()
        found = self._newest(self._lines.trains)
        if found:
            self._say(f"submit: {found}")

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Ctrl-C becomes an event, so that no text is cut in two; not outside the main thread, where none arrives."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, lambda *_: self._events.put(_Event("interrupt")))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def ask(job_id: str) -> Literal["stop", "follow", "detach"]:
    """What to do about the job, after a Ctrl-C; without a terminal, or at a second Ctrl-C, it is left alone."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "detach"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while True:
            _to_stderr(f"\nStop {job_id}? [y]es, [n]o: follow on, Ctrl-C: leave it running ")
            answer = sys.stdin.readline()
            if not answer:
                return "detach"
            if answer.strip().lower() in ("y", "yes"):
                return "stop"
            if answer.strip().lower() in ("n", "no", ""):
                return "follow"
    except KeyboardInterrupt:
        _to_stderr("\n")
        return "detach"
    finally:
        signal.signal(signal.SIGINT, before)


def _pauses(over: threading.Event) -> Iterator[float]:
    pause = POLL_SECONDS
    while not over.is_set():
        yield pause
        pause = min(_LONGEST_PAUSE, 2 * pause)


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
