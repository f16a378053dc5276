"""Which waiting prompts the model takes together. Plain data; imports neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Prompts that share it can be decoded in one batch."""

    max_tokens: int
    temperature: float = 0.0
    """0 is greedy, and then `top_p` and `seed` mean nothing."""
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One prompt to complete once."""

    prompt: tuple[int, ...]
    sampling: Sampling
    score_prompt: bool = False
    """Give the log-probabilities of the prompt's own tokens too."""
    top_logprobs: int = 0
    """The most likely tokens listed beside each."""
    deadline: float = float("inf")
    """`time.monotonic()` after which nobody waits for the answer."""


def compatible(jobs: Sequence[Job]) -> list[list[int]]:
    """Positions of the jobs, grouped by what one call of the model can decode together.

    A greedy answer is the same in any company, so greedy jobs go together whatever their seeds; so do sampled ones
    without a seed. A seed promises the same answer again, so a job that has one is decoded alone.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, job in enumerate(jobs):
        s = job.sampling
        key: tuple[object, ...]
        if s.max_tokens == 0:
            key = ("score",)
        elif s.temperature == 0:
            key = ("greedy", _size(s.max_tokens), s.stop)
        elif s.seed is None:
            key = ("sampled", s.temperature, s.top_p, _size(s.max_tokens), s.stop)
        else:
            key = ("seeded", place)
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def _size(max_tokens: int) -> int:
    """The power of two at or above: a short answer waits for one at most twice as long."""
    return 1 << (max_tokens - 1).bit_length()
