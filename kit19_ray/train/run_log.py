"""What a rank says of the run: rank 0 into the files of its prefix, the others into their worker's own log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.redaction import redacted
from kit19_ray.train import trackers
from kit19_ray.train.metrics_writer import MetricsWriter
from kit19_ray.train.samples import SamplePrompt
from kit19_ray.train.spec import TrainSpec
from kit19_ray.train.train_state import TrainState


class RunLog:
    """Whatever is said stands beside the step that `state` is at.

    Args:
        attempt: names this start of the workers.
    """

    def __init__(self, spec: TrainSpec, state: TrainState, rank: int, attempt: str) -> None:
        self._spec, self._state, self._rank, self._attempt = spec, state, rank, attempt
        self._writer: MetricsWriter | None = None
        self.figures: Callable[[], MetricsLine] = dict  # type: ignore[assignment]  # an empty line
        """What every line of metrics says besides."""

    def open(self) -> None:
        """Opens rank 0's files, when it is known at which step the run goes on."""
        if self._rank:
            return
        spec, attempt, config = self._spec, self._attempt, self._spec.config.identity()
        self._writer = MetricsWriter(
            spec.out,
            self._state.step,
            lambda: trackers.make(list(spec.config.trackers), spec.out, attempt, config),
            spec.data,
        )

    def close(self) -> None:
        """Waits a while for what was said."""
        if self._writer is not None:
            self._writer.close(30)

    def say(self, text: str) -> None:
        """What the user should know, into events.jsonl."""
        if self._writer is not None:
            self._writer.event(redacted(text), self._state.step)
        else:
            print(f"train: {redacted(text)}", file=sys.stderr, flush=True)  # noqa: T201

    def status(self, phase: str) -> None:
        """What the worker is doing, into status.json."""
        if self._writer is not None:
            self._writer.status(phase, self._state.step)

    def line(self, line: MetricsLine) -> None:
        """Figures, into metrics.jsonl and to the trackers."""
        if self._writer is not None:
            place = self._state.place(self._spec.plan)
            self._writer.line({**place, **line, **self.figures(), "time": time.time()})

    def sample(self, prompt: SamplePrompt, answer: list[int]) -> None:
        """A prompt and the model's answer, into samples.jsonl."""
        if self._writer is not None:
            self._writer.sample(self._state.step, prompt, answer)
