"""Which waiting prompts the model takes together. Plain data; imports neither Ray nor torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Job:
    """One prompt to complete once."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    """0 is greedy, and then `top_p` and `seed` mean nothing."""
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    score_prompt: bool = False
    """Give the log-probabilities of the prompt's own tokens too."""
    top_logprobs: int = 0
    """The most likely tokens listed beside each."""
    gone: threading.Event = field(default_factory=threading.Event, compare=False)
    """Set when nobody waits for the answer any more: the client left, or its time is over."""
    heard: Callable[[int, float, dict[int, float]], None] | None = field(default=None, compare=False)
    """Told each token as it is decoded, with its log-probability and the likeliest ones; in the model's thread."""
    asked: float = field(default_factory=time.monotonic, compare=False)
    """When it was asked for, on the monotonic clock."""


def together(jobs: Sequence[Job]) -> list[list[int]]:
    """Positions of the jobs that want tokens, grouped by what the model can decode in one batch.

    Length and seed are each job's own; temperature, top_p and the stop sequences are the batch's. Greedy jobs go
    together whatever their top_p.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, job in enumerate(jobs):
        if job.max_tokens > 0:
            top_p = job.top_p if job.temperature > 0 else 1.0
            groups.setdefault((job.temperature, top_p, job.stop), []).append(place)
    return list(groups.values())
