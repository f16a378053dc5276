"""One prompt on its way to its completion."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kit19_ray.lm.sampling import SamplingParams, random_source

FinishReason = Literal["stop", "length"]


@dataclass
class DecodedText:
    """What followed one prompt. The lists have one entry a token."""

    text: str = ""
    """Decoded, special tokens included; cut before the stop sequence that ended it."""
    token_ids: list[int] = field(default_factory=list)
    """Every token but the one that ends a text. A stop sequence's tokens are here though not in `text`."""
    finish_reason: FinishReason = "length"
    """stop: the model ended the text, or a stop sequence came up. length: cut at the limit, or cancelled."""
    logprobs: list[float] = field(default_factory=list)
    """Of each token."""
    top_logprobs: list[dict[int, float]] = field(default_factory=list)
    """At each token the likeliest ones, as many as were asked for; empty when none were."""
    prompt_logprobs: list[float | None] = field(default_factory=list)
    """Of the prompt's tokens when they are asked for, the first None; else empty."""
    prompt_top_logprobs: list[dict[int, float] | None] = field(default_factory=list)


class Codec(Protocol):
    """Tokens to text, and which tokens end one."""

    eos_ids: frozenset[int]

    def decode(self, ids: Sequence[int]) -> str: ...


OnToken = Callable[["DecodingSequence"], None]
"""Told a sequence after each of its tokens."""


class DecodingSequence:
    """A prompt, its parameters, and what was decoded so far.

    Args:
        prompt: token ids, one at least.
        on_token: told the sequence after each of its tokens, in the model's thread.
        should_continue: asked before each step; False ends the sequence within one step.
        adapter: the LoRA adapter it is decoded with, as the engine knows it; None is the model itself.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        on_token: OnToken | None = None,
        should_continue: Callable[[], bool] | None = None,
        adapter: str | None = None,
    ) -> None:
        self.prompt = list(prompt)
        self.adapter = adapter
        self.params = params
        self.on_token = on_token
        self.cancelled = threading.Event()
        self._should_continue = should_continue
        self.completion = DecodedText()
        self.finished = False
        self.error: Exception | None = None
        """What went wrong with the batch it was in."""
        self.source = random_source(params.seed) if params.temperature > 0 else None
        self.cached = 0
        """Tokens, of prompt and completion, whose keys and values are in the cache."""
        self.reused = 0
        """Tokens of the prompt that were found in the prefix cache."""
        self.arrived = time.monotonic()
        self.started: float | None = None
        """When its prompt was first given to the model, on the monotonic clock."""
        # A token has at least one byte, so a stop sequence that has just ended lies within this many tokens. A few
        # more, so that the first of them does not begin within a character.
        self._tail = max((len(stop.encode()) for stop in params.stop), default=0) + 4

    @property
    def is_wanted(self) -> bool:
        """Whether anybody waits for more of it."""
        return not self.cancelled.is_set() and (self._should_continue is None or self._should_continue())

    @property
    def tokens(self) -> list[int]:
        """Prompt and completion."""
        return self.prompt + self.completion.token_ids

    def add(self, token: int, logprob: float, top: dict[int, float] | None, codec: Codec) -> None:
        """Adds a token, ends the sequence where it ends, and tells whoever listens."""
        done, params = self.completion, self.params
        # The token that ends a text is no part of it, so it is not listed.
        if token in codec.eos_ids and not params.ignore_eos:
            self.finish("stop", codec)
            return
        done.token_ids.append(token)
        done.logprobs.append(logprob)
        if top is not None:
            done.top_logprobs.append(top)
        # First the tail alone, a few tokens: decoding the whole text after every token would cost its length squared.
        # Only when a stop sequence may have come up is the whole decoded, where an earlier cut is found too.
        if params.stop and any(stop in codec.decode(done.token_ids[-self._tail :]) for stop in params.stop):
            text = codec.decode(done.token_ids)
            cuts = [place for stop in params.stop if (place := text.find(stop)) >= 0]
            if cuts:
                done.text, done.finish_reason, self.finished = text[: min(cuts)], "stop", True
        if not self.finished and len(done.token_ids) >= params.max_tokens:
            self.finish("length", codec)
        # Nobody may hear of a token after cancelling: the listener's request may be gone.
        if self.on_token is not None and not self.cancelled.is_set():
            self.on_token(self)

    def finish(self, reason: FinishReason, codec: Codec) -> None:
        """Ends it with the text it has."""
        self.completion.finish_reason = reason
        self.completion.text = codec.decode(self.completion.token_ids)
        self.finished = True
