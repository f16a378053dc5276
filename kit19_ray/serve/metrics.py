"""What one replica counts, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one replica; each has a registry of its own, so that several can live in one process."""

    def __init__(self, replica: str) -> None:
        self.registry = CollectorRegistry()
        label: dict[str, Any] = {"registry": self.registry, "labelnames": ["replica"]}
        self._replica = replica
        self._requests = Counter(
            "kit19_requests", "Requests by HTTP status.", registry=self.registry, labelnames=["replica", "status"]
        )
        self.prompts = Counter("kit19_prompts", "Prompts taken up.", **label).labels(replica)
        self.batches = Counter("kit19_batches", "Batches given to the model.", **label).labels(replica)
        self.prompt_tokens = Counter("kit19_prompt_tokens", "Tokens of prompts.", **label).labels(replica)
        self.new_tokens = Counter("kit19_completion_tokens", "Tokens generated.", **label).labels(replica)
        self._gauge = Gauge("kit19_requests_in_progress", "Requests not yet answered.", **label).labels(replica)
        self.in_progress = 0
        self.disconnects = Counter(
            "kit19_disconnects", "Requests whose client left before the answer was whole.", **label
        ).labels(replica)
        self.first_token = Histogram(
            "kit19_time_to_first_token_seconds",
            "Time from a prompt's arrival to its first token, waiting included.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
            **label,
        ).labels(replica)
        self.inter_token = Histogram(
            "kit19_inter_token_seconds",
            "Time between two tokens of a completion.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
            **label,
        ).labels(replica)
        self.seconds = Histogram(
            "kit19_request_seconds",
            "Time from request to response.",
            buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120),
            **label,
        ).labels(replica)

    @contextmanager
    def one_in_progress(self) -> Iterator[None]:
        """Counts a request as in progress for the block."""
        self.in_progress += 1
        self._gauge.set(self.in_progress)
        try:
            yield
        finally:
            self.in_progress -= 1
            self._gauge.set(self.in_progress)

    def answered(self, status: int) -> None:
        """Counts one response."""
        self._requests.labels(self._replica, str(status)).inc()

    def text(self) -> bytes:
        """All of it, for a scrape."""
        return generate_latest(self.registry)
