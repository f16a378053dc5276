"""Rank 0's pen: metrics, events, status and trackers, in a thread of its own that never raises.

What a training is worth is in its weights; a store or a tracker that is out for an hour costs lines that come later,
or a tracker's curve, and no step.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from kit19_ray.artifacts import metrics_log
from kit19_ray.artifacts.metrics_log import MetricsLine, MetricsLog
from kit19_ray.errors import StorageError
from kit19_ray.io import storage
from kit19_ray.lm import pretrained
from kit19_ray.redaction import redacted
from kit19_ray.train import samples
from kit19_ray.train.samples import SamplePrompt

_STATUS_SECONDS = 5.0
_RETRY_SECONDS = 5.0
_END = ""  # in the place of a file's name: nothing comes any more


class Tracker(Protocol):
    """A place beside metrics.jsonl that the figures go to."""

    name: str

    def log(self, line: MetricsLine) -> None:
        """Takes the line of a step."""

    def close(self) -> None:
        """Makes everything seen."""


class MetricsWriter:
    """The thread and what is handed to it.

    Args:
        out: the run's prefix.
        step: the run goes on from here; later lines are dropped.
        trackers: makes them, in the thread.
        data: the data prefix, whose tokenizer turns samples into text.
    """

    def __init__(self, out: str, step: int, trackers: Callable[[], list[Tracker]], data: str) -> None:
        self._out, self._step, self._make, self._data = out, step, trackers, data
        self._queue: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._tokenizer: Any = None
        self._status: tuple[str, int] = ("starting", step)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def line(self, line: MetricsLine) -> None:
        """Adds a line of metrics.jsonl."""
        self._queue.put((metrics_log.NAME, line))

    def event(self, text: str, step: int) -> None:
        """Adds a line of events.jsonl; any thread may."""
        self._queue.put((metrics_log.EVENTS, {"step": step, "time": time.time(), "text": text}))

    def sample(self, step: int, prompt: SamplePrompt, answer: list[int]) -> None:
        """Adds a line of samples.jsonl: a prompt, the answer that is expected and the model's, as text."""
        tokens = {"prompt": prompt.tokens, "expected": prompt.expected, "answer": answer}
        self._queue.put((samples.NAME, {"step": step, **tokens}))

    def status(self, phase: str, step: int) -> None:
        """What the worker is doing now; seen within seconds."""
        self._status = (phase, step)

    def close(self, seconds: float) -> None:
        """Waits for what was handed in, at most `seconds`."""
        self._queue.put((_END, {}))
        self._thread.join(seconds)
        self._closing.set()
        if self._thread.is_alive():
            _warn("the last metrics did not get through")

    def _run(self) -> None:
        steps = {metrics_log.NAME: self._step, metrics_log.EVENTS: None, samples.NAME: self._step}
        logs: dict[str, MetricsLog] = {}
        for name, step in steps.items():
            made = self._insist(lambda name=name, step=step: MetricsLog(self._out, step, name))  # type: ignore[misc]
            if made is None:
                return
            logs[name] = made
        trackers = self._trackers()
        told = 0.0
        open_ = True
        while open_:
            with contextlib.suppress(queue.Empty):
                name, line = self._queue.get(timeout=_STATUS_SECONDS)
                if name == samples.NAME:
                    line = self._insist(lambda line=line: self._decoded(line))  # type: ignore[misc]
                if name == _END:
                    open_ = False
                elif line is not None:
                    self._insist(lambda name=name, line=line: logs[name].append(line))  # type: ignore[misc]
                if name == metrics_log.NAME:
                    _each(trackers, lambda tracker, line=line: tracker.log(line))  # type: ignore[misc]
            if time.monotonic() - told >= _STATUS_SECONDS or not open_:
                told = time.monotonic()
                phase, step = self._status
                with contextlib.suppress(StorageError, OSError):  # the next one comes in seconds
                    metrics_log.write_status(self._out, {"phase": phase, "step": step, "time": time.time()})
        for log in logs.values():
            self._insist(log.flush)
        _each(trackers, lambda tracker: tracker.close())

    def _decoded(self, line: Mapping[str, Any]) -> dict[str, str | int]:
        if self._tokenizer is None:
            self._tokenizer = pretrained.load_tokenizer(storage.join(self._data, "tokenizer"))
        return {k: self._tokenizer.decode(v) if isinstance(v, list) else v for k, v in line.items()}

    def _insist(self, action: Callable[[], Any]) -> Any:
        """Tries until it works or the writer is closed; what comes of it, None when nothing did."""
        warned = False
        while True:
            try:
                return action()
            except Exception as error:  # noqa: BLE001 - whatever the store says, the training goes on
                if not warned:
                    _warn(f"the metrics do not get through, trying on: {error}")
                warned = True
            if self._closing.wait(_RETRY_SECONDS):
                return None

    def _trackers(self) -> list[Tracker]:
        try:
            return self._make()
        except Exception as error:  # noqa: BLE001 - as above
            _warn(f"no tracker: {error}")
            return []


def _each(trackers: list[Tracker], action: Callable[[Tracker], None]) -> None:
    """Calls every tracker; one that fails is called no more."""
    for tracker in list(trackers):
        try:
            action(tracker)
        except Exception as error:  # noqa: BLE001 - as above
            _warn(f"{tracker.name} is left out from here on: {error}")
            trackers.remove(tracker)


def _warn(text: str) -> None:
    print(f"train: {redacted(text)}", file=sys.stderr, flush=True)  # noqa: T201 - into the worker's log
