"""What the driver shows while the workers train: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kit19_ray.artifacts import metrics_log
from kit19_ray.artifacts.metrics_log import MetricsLine, RunStatus
from kit19_ray.errors import StorageError
from kit19_ray.train.spec import TrainSpec
from kit19_ray.utils.console import bars, say

_POLL_SECONDS = {"file": 0.5, "s3": 5.0}
_LINE_SECONDS = 10.0  # between lines of figures
_SILENT_SECONDS = 25.0  # without a status
_QUIET_SECONDS = 30.0  # after which something is said although there is no new figure


@dataclass(frozen=True)
class News:
    """What one look at the run's prefix found.

    Attributes:
        line: the newest line of metrics, None when it is known already.
        events: texts that are new.
        status: what rank 0 is doing, None before it says so.
    """

    line: MetricsLine | None
    events: list[str]
    status: RunStatus | None


@contextmanager
def watching(spec: TrainSpec) -> Iterator[None]:
    """Shows on stderr what the run's prefix says until the block ends."""
    stop = threading.Event()
    follow = _bar if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=follow, args=(spec, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


def describe(line: MetricsLine) -> str:
    """The figures of a metrics line in a few words."""
    losses = {"loss": line.get("loss"), "validation loss": line.get("validation_loss")}
    parts = [f"{name} {loss:.4f}" for name, loss in losses.items() if loss is not None]
    if line.get("tokens_per_second"):
        parts.append(f"{line['tokens_per_second']:,.0f} tokens/s")
    if line.get("mfu"):
        parts.append(f"MFU {line['mfu']:.1%}")
    if line.get("eta_seconds"):
        parts.append(f"{line['eta_seconds']:.0f} s left")
    return ", ".join(parts)


def waiting(spec: TrainSpec, status: RunStatus | None, seconds: float) -> str:
    """What to say when there has been no figure for `seconds`."""
    if status is None:
        gpu = " and a GPU" if spec.use_gpu else ""
        least = spec.config.min_workers or spec.config.workers
        return f"waiting for {least} workers with {spec.config.cpus_per_worker:g} CPUs{gpu} each for {seconds:.0f} s"
    silent = time.time() - status["time"]
    if silent > _SILENT_SECONDS:  # it writes every few seconds, also while a step takes minutes
        return f"no word from the workers for {silent:.0f} s: they are being started again, or the store is out"
    if status["phase"] == "step":
        return f"step {status['step'] + 1}/{spec.plan.steps} is running"
    return f"{status['phase']}, after step {status['step']}/{spec.plan.steps}"


def _news(out: str, stop: threading.Event) -> Iterator[News]:
    """What is new about once a poll; one last look after `stop`."""
    begun = time.time()
    seen = {metrics_log.NAME: begun, metrics_log.EVENTS: begun}
    pause = _POLL_SECONDS[out.split("://")[0]]
    while True:
        ended = stop.wait(pause)
        try:
            found = {name: metrics_log.tail(out, name) for name in seen}
            status = metrics_log.read_status(out)
        except StorageError:
            found, status = {name: [] for name in seen}, None  # the workers' own writes tell the user
        new = {name: [line for line in lines if line["time"] > seen[name]] for name, lines in found.items()}
        for name, lines in new.items():
            seen[name] = max([seen[name], *(line["time"] for line in lines)])
        figures = new[metrics_log.NAME]
        events = [str(line["text"]) for line in new[metrics_log.EVENTS]]
        current = status if status is not None and status["time"] > begun else None
        yield News(figures[-1] if figures else None, events, current)
        if ended:
            return


def _lines(spec: TrainSpec, stop: threading.Event) -> None:
    begun = time.monotonic()
    told, pending = begun - _LINE_SECONDS, None
    for news in _news(spec.out, stop):
        for text in news.events:
            say(f"train: {text}")
        pending = news.line or pending
        now = time.monotonic()
        if pending is not None and (now - told >= _LINE_SECONDS or stop.is_set()):
            say(f"train: step {pending['step']}/{spec.plan.steps}, {describe(pending)}")
            told, pending = now, None
        elif now - max(told, begun) >= _QUIET_SECONDS:
            say(f"train: {waiting(spec, news.status, now - begun)}")
            told = now


def _bar(spec: TrainSpec, stop: threading.Event) -> None:
    from rich.progress import MofNCompleteColumn, TextColumn

    columns = (MofNCompleteColumn(), TextColumn("{task.fields[newest]}", markup=False))
    begun = told = time.monotonic()
    with bars(*columns, transient=False) as progress:
        task = progress.add_task("train", total=spec.plan.steps, newest="starting the workers")
        for news in _news(spec.out, stop):
            for text in news.events:
                progress.console.print(f"train: {text}", markup=False)
            now = time.monotonic()
            if news.line is not None:
                progress.update(task, completed=news.line["step"], newest=describe(news.line))
                told = now
            elif now - told >= _QUIET_SECONDS:
                progress.update(task, newest=waiting(spec, news.status, now - begun))
                told = now
