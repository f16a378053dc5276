"""What serving measures. Ray carries it: every replica's figures, of every node, are in one scrape.

A name here is `ray_<name>` in Prometheus (counters `ray_<name>_total`), with Ray's labels `deployment` and `replica`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "ray_kit19_"
"""Of every name in a scrape."""

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


@dataclass(frozen=True)
class Metric:
    """One thing measured."""

    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ("model",)
    boundaries: tuple[float, ...] = _SECONDS


METRICS: dict[str, Metric] = {
    "kit19_requests": Metric("counter", "Requests by HTTP status.", ("model", "status")),
    "kit19_requests_in_progress": Metric("gauge", "Requests not yet answered.", ()),
    "kit19_disconnects": Metric("counter", "Requests whose client left before the answer was whole."),
    "kit19_failovers": Metric("counter", "Requests sent to another replica because theirs died before it answered."),
    "kit19_request_seconds": Metric("histogram", "Time from request to the end of its response."),
    "kit19_queue_seconds": Metric("histogram", "Time a prompt waited before the model began to read it."),
    "kit19_time_to_first_token_seconds": Metric("histogram", "Time from a prompt's arrival to its first token."),
    "kit19_inter_token_seconds": Metric(
        "histogram",
        "Time between two tokens of a completion.",
        boundaries=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
    ),
    "kit19_prompt_tokens": Metric("counter", "Tokens of prompts."),
    "kit19_reused_prompt_tokens": Metric("counter", "Tokens of prompts that were found in the prefix cache."),
    "kit19_completion_tokens": Metric("counter", "Tokens generated."),
    "kit19_sequences_running": Metric("gauge", "Sequences decoded together: the batch."),
    "kit19_sequences_waiting": Metric("gauge", "Sequences that wait for a place in the batch."),
    "kit19_cache_tokens": Metric("gauge", "Tokens whose keys and values are held for running sequences."),
    "kit19_cache_use": Metric("gauge", "Share of serve.cache_tokens that running sequences hold."),
}


class Recorder(Protocol):
    """Where figures go."""

    def record(self, name: str, value: float, labels: dict[str, str]) -> None:
        """Adds to a counter, sets a gauge, or observes a value of a histogram of METRICS."""


class RayRecorder:
    """Hands figures to Ray's metrics agent of this node, which every scrape reads."""

    def __init__(self) -> None:
        from ray.serve import metrics

        makers: dict[str, Any] = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        self._made: dict[str, Any] = {}
        for name, metric in METRICS.items():
            options: dict[str, Any] = {"description": metric.description, "tag_keys": metric.labels or None}
            if metric.kind == "histogram":
                self._made[name] = metrics.Histogram(name, boundaries=list(metric.boundaries), **options)
            else:
                self._made[name] = makers[metric.kind](name, **options)

    def record(self, name: str, value: float, labels: dict[str, str]) -> None:
        """As Recorder."""
        made = self._made[name]
        if METRICS[name].kind == "counter" and not value:
            return  # Ray refuses to add nothing
        calls = {"counter": "inc", "gauge": "set", "histogram": "observe"}
        getattr(made, calls[METRICS[name].kind])(value, tags=labels or None)


class MemoryRecorder:
    """Keeps figures in this process, for batch inference and tests: sums, last values, and all observations."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}
        self.observed: dict[str, list[float]] = {}

    def record(self, name: str, value: float, labels: dict[str, str]) -> None:
        """As Recorder."""
        metric = METRICS[name]
        key = (name, *(labels[label] for label in metric.labels))
        if metric.kind == "histogram":
            self.observed.setdefault(name, []).append(value)
        else:
            self.values[key] = value + (self.values.get(key, 0) if metric.kind == "counter" else 0)


class ServeMetrics:
    """Counts what one process does."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.in_progress = 0

    def record(self, name: str, value: float = 1, **labels: str) -> None:
        """Records one value of METRICS."""
        self._recorder.record(name, value, labels)

    @contextmanager
    def one_in_progress(self) -> Iterator[None]:
        """Counts a request as in progress for the block."""
        self.in_progress += 1
        self.record("kit19_requests_in_progress", self.in_progress)
        try:
            yield
        finally:
            self.in_progress -= 1
            self.record("kit19_requests_in_progress", self.in_progress)


def merge(scrapes: list[str]) -> str:
    """One exposition of our metrics from those of several nodes: each family once, with every node's samples."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for scrape in scrapes:
        family = ""
        for line in scrape.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                if family.startswith(PREFIX) and line not in heads.setdefault(family, []):
                    heads[family].append(line)
            elif line.startswith(PREFIX):
                samples.setdefault(family, []).append(line)
    lines = [line for family, rows in samples.items() for line in (*heads.get(family, []), *rows)]
    return "\n".join(lines) + "\n" if lines else ""
