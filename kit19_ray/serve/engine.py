"""The model as the server uses it: jobs in, answers out, whoever they are batched with."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit19_ray.serve.batches import Job, compatible
from kit19_ray.serve.protocol import ApiError

if TYPE_CHECKING:
    from kit19_ray.generation import Generator
    from kit19_ray.serve.metrics import Metrics

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Answer:
    """What the model said to one job. The lists have one entry a token."""

    ids: list[int]
    text: str
    """The completion, cut before a stop sequence."""
    finish_reason: str
    """`stop`: it ended by itself or at a stop sequence; `length`: it was cut at max_tokens."""
    logprobs: list[float]
    top: list[dict[int, float]]
    prompt_logprobs: list[float | None]
    """Of the prompt's tokens when the job asks for them, the first None; else empty."""
    prompt_top: list[dict[int, float] | None]
