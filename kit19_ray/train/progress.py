"""What the driver shows while the workers train: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kit19_ray.artifacts import metrics_log
from kit19_ray.errors import StorageError
from kit19_ray.utils.console import bars, say

_POLL_SECONDS = {"file": 0.5, "s3": 5.0}
_LINE_SECONDS = 10.0


@contextmanager
def watching(out: str, steps: int) -> Iterator[None]:
    """Shows the newest line of the run's metrics on stderr until the block ends."""
    stop = threading.Event()
    follow = _bar if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=follow, args=(out, steps, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


def describe(line: dict[str, Any]) -> str:
    """The figures of a metrics line in a few words."""
    parts = [f"{name.replace('_', ' ')} {line[name]:.4f}" for name in ("loss", "validation_loss") if name in line]
    if line.get("tokens_per_second"):
        parts.append(f"{line['tokens_per_second']:,.0f} tokens/s")
    if line.get("eta_seconds"):
        parts.append(f"{line['eta_seconds']:.0f} s left")
    return ", ".join(parts)


def _new_lines(out: str, stop: threading.Event) -> Iterator[dict[str, Any] | None]:
    """The newest line each time there is one, else None, about once a poll; one last look after `stop`."""
    begun, seen = time.time(), 0.0
    pause = _POLL_SECONDS[out.split("://")[0]]
    while True:
        ended = stop.wait(pause)
        try:
            line = metrics_log.last(out)
        except StorageError:
            line = None  # the workers' own writes tell the user when the storage is gone
        if line is not None and line["time"] > max(begun, seen):
            seen = line["time"]
            yield line
        else:
            yield None
        if ended:
            return


def _lines(out: str, steps: int, stop: threading.Event) -> None:
    told = -_LINE_SECONDS
    pending: dict[str, Any] | None = None
    for line in _new_lines(out, stop):
        pending = line or pending
        now = time.monotonic()
        if pending is not None and (now - told >= _LINE_SECONDS or stop.is_set()):
            say(f"train: step {pending['step']}/{steps}, {describe(pending)}")
            told, pending = now, None


def _bar(out: str, steps: int, stop: threading.Event) -> None:
    from rich.progress import MofNCompleteColumn, TextColumn

    columns = (MofNCompleteColumn(), TextColumn("{task.fields[newest]}", markup=False))
    with bars(*columns, transient=False) as progress:
        task = progress.add_task("train", total=steps, newest="starting the workers")
        for line in _new_lines(out, stop):
            if line is not None:
                progress.update(task, completed=line["step"], newest=describe(line))
