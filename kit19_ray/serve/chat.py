"""OpenAI's /v1/chat/completions as plain data: the request and what is wrong with it.

Imports neither Ray nor torch nor a web framework.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kit19_ray.config.schema import ServeConfig
from kit19_ray.serve import protocol
from kit19_ray.serve.protocol import ApiError, StreamOptions

MAX_TOP_LOGPROBS = 20
# Parameters of OpenAI's that this server does not have, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "metadata": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}


class Message(BaseModel):
    """One turn."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str
    """The text; OpenAI's list of text parts is taken too."""

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        texts = [part.get("text") for part in value if isinstance(part, dict) and part.get("type") == "text"]
        written = [text for text in texts if isinstance(text, str)]
        if len(written) != len(value):
            raise ValueError("content must be text or a list of text parts; this model reads nothing else")
        return "".join(written)


class ChatRequest(BaseModel):
    """The body of POST /v1/chat/completions. A null is the same as leaving the field out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    """OpenAI's older name of max_completion_tokens."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """None: as many as the server allows and the context has room for."""
    temperature: float = Field(1.0, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1)
    """Answers."""
    stop: str | list[str] = []
    """Generation ends before any of these, and before the prompt wrapper's own."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logprobs: bool = False
    """List each token with its log-probability."""
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    """How many of the likeliest tokens to list beside each."""
    stream: bool = False
    """Send the text as it is decoded, as server-sent events."""
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Accepted and not used."""

    @field_validator("stop", mode="before")
    @classmethod
    def _usable_stops(cls, value: Any) -> Any:
        return protocol.stops(value)

    @property
    def limit(self) -> int | None:
        """Most tokens of an answer, by whichever name it was given."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


def parse(body: bytes, limits: ServeConfig) -> ChatRequest:
    """The request in `body`, within the server's limits.

    Raises:
        ApiError: 400 when it is not JSON, has unknown or wrong fields or asks for too much; 404 for another model.
    """
    request = protocol.read(body, ChatRequest, NEUTRAL)
    protocol.check_common(request.model, request.stop, request.stream, request.stream_options, limits)
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise ApiError(400, "give max_tokens or max_completion_tokens, not both", "max_tokens")
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    if request.limit is not None and request.limit > limits.max_tokens:
        raise ApiError(400, f"{name} is {request.limit}, the most is {limits.max_tokens}", name)
    if request.n > limits.max_prompts:
        raise ApiError(400, f"n is {request.n}, the most is {limits.max_prompts}", "n")
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs=true", "top_logprobs")
    length = sum(len(message.content) for message in request.messages)
    if length > limits.max_prompt_chars:
        message = f"messages have {length} characters, the most is {limits.max_prompt_chars}"
        raise ApiError(400, message, "messages", "context_length_exceeded")
    if not all(protocol.is_unicode(message.content) for message in request.messages):
        raise ApiError(400, "messages hold a lone surrogate, which is no Unicode text", "messages")
    return request
