"""OpenAI's response bodies, whole and in chunks, of both endpoints. Plain data.

A shape builds the bodies of one response; `Text` those of /v1/completions, `Chat` those of /v1/chat/completions.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kit19_ray.utils.json_types import Json


@dataclass(frozen=True)
class Likely:
    """A token that could have stood there."""

    name: str
    logprob: float
    raw: bytes


@dataclass(frozen=True)
class Token:
    """One token of a text."""

    text: str
    """Empty when it is part of a character that a later token ends."""
    offset: int
    """Where its text starts, in characters of the choice's text."""
    logprob: float | None
    """None for the first token of an echoed prompt, which has nothing before it."""
    raw: bytes
    """Its bytes: those of a part of a character too."""
    top: list[Likely]
    """The likeliest tokens there, likeliest first."""


class Shape(Protocol):
    """The bodies of one response."""

    def choice(self, index: int, text: str, tokens: Sequence[Token] | None, finish_reason: str) -> Json:
        """A whole answer; `tokens` None when no log-probabilities are asked for."""

    def opening(self, index: int) -> Json | None:
        """What a stream says of a choice before its text."""

    def delta(self, index: int, text: str, tokens: Sequence[Token] | None, finish_reason: str | None) -> Json:
        """A part of an answer; the last one has a reason."""

    def whole(self, choices: list[Json], usage: Json) -> Json:
        """The response body."""

    def chunk(self, choices: list[Json], usage: Json | None = None, with_usage: bool = False) -> Json:
        """One event of a stream; `with_usage` when the client wants the usage, which all but the last have as null."""


@dataclass
class _Base:
    model: str
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    prefix = ""
    kind = ""
    chunk_kind = ""

    def __post_init__(self) -> None:
        self.id = self.id or f"{self.prefix}-{uuid.uuid4().hex}"

    def whole(self, choices: list[Json], usage: Json) -> Json:
        return self._body(self.kind, choices) | {"usage": usage}

    def chunk(self, choices: list[Json], usage: Json | None = None, with_usage: bool = False) -> Json:
        body = self._body(self.chunk_kind, choices)
        return body | {"usage": usage} if with_usage else body

    def _body(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


class Text(_Base):
    """/v1/completions."""

    prefix = "cmpl"
    kind = chunk_kind = "text_completion"

    def choice(self, index: int, text: str, tokens: Sequence[Token] | None, finish_reason: str) -> Json:
        return self.delta(index, text, tokens, finish_reason)

    def opening(self, index: int) -> Json | None:
        return None

    def delta(self, index: int, text: str, tokens: Sequence[Token] | None, finish_reason: str | None) -> Json:
        logprobs = None
        if tokens is not None:
            logprobs = {
                "tokens": [token.text for token in tokens],
                "token_logprobs": [token.logprob for token in tokens],
                "top_logprobs": [
                    None if token.logprob is None else {likely.name: likely.logprob for likely in token.top}
                    for token in tokens
                ],
                "text_offset": [token.offset for token in tokens],
            }
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


class Chat(_Base):
    """/v1/chat/completions."""

    prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def choice(self, index: int, text: str, tokens: Sequence[Token] | None, finish_reason: str) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": _content(tokens),
            "finish_reason": finish_reason,
        }

    def opening(self, index: int) -> Json | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, index: int, text: str, tokens: Sequence[Token] | None, finish_reason: str | None) -> Json:
        delta = {"content": text} if text or tokens else {}
        return {"index": index, "delta": delta, "logprobs": _content(tokens), "finish_reason": finish_reason}


def usage(prompt_tokens: int, new_tokens: int) -> Json:
    """The tokens of a response, counted."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
    }


def _content(tokens: Sequence[Token] | None) -> Json | None:
    if tokens is None:
        return None
    return {
        "content": [
            _named(token.text, token.logprob, token.raw)
            | {"top_logprobs": [_named(likely.name, likely.logprob, likely.raw) for likely in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def _named(text: str, logprob: float | None, raw: bytes) -> Json:
    return {"token": text, "logprob": logprob, "bytes": list(raw)}
