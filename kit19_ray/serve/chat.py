"""OpenAI's /v1/chat/completions as plain data: the request and what is wrong with it.

Imports neither Ray nor torch nor a web framework.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kit19_ray.config.schema import ServeConfig
from kit19_ray.serve import protocol
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.protocol import SamplingRequest
from kit19_ray.serve.request_body import is_unicode, read

MAX_TOP_LOGPROBS = 20
MAX_MESSAGES = 2048
_MAX_MESSAGE_KEYS = 32
# Parameters of OpenAI's that this server does not have, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),  # of tools there are none
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "prompt_cache_retention": ("in_memory", "24h"),
}
# What response objects of OpenAI's SDK and of LiteLLM carry beside role and content, as clients send them back.
_MESSAGE_IGNORED = frozenset({"name", "annotations", "id", "provider_specific_fields"})
_MESSAGE_NEUTRAL: dict[str, tuple[Any, ...]] = {"tool_calls": ([],), "function_call": (), "audio": ()}


class RequestMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    """`developer` is OpenAI's newer name of `system`."""
    content: str
    """The text; OpenAI's list of text parts is taken too."""

    @model_validator(mode="before")
    @classmethod
    def _as_clients_send_it(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if len(value) > _MAX_MESSAGE_KEYS:
            raise ValueError(f"a message has {len(value)} fields, the most is {_MAX_MESSAGE_KEYS}")
        kept = {key: item for key, item in value.items() if item is not None and key not in _MESSAGE_IGNORED}
        for key, nothing in _MESSAGE_NEUTRAL.items():
            if key in kept and kept[key] in nothing:
                del kept[key]
        refused = kept.pop("refusal", None)
        if "content" not in kept and kept.get("role") == "assistant":
            kept["content"] = refused if isinstance(refused, str) else ""  # what it said, or that it said nothing
        if isinstance(kept.get("content"), list):
            kept["content"] = _joined(kept["content"])
        return kept


def _joined(parts: list[Any]) -> str:
    texts = []
    for place, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get({"text": "text", "refusal": "refusal"}.get(str(kind), "")) if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"content[{place}] must be a text part; this model reads nothing else")
        texts.append(text)
    return "".join(texts)


class ChatRequest(SamplingRequest):
    """The body of POST /v1/chat/completions. A null is the same as leaving the field out."""

    messages: list[RequestMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    """The conversation so far; the last turn is the user's."""
    max_tokens: int | None = Field(None, ge=1)
    """OpenAI's older name of max_completion_tokens."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """None: as many as the server allows and the context has room for."""
    logprobs: bool = False
    """List each token with its log-probability."""
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    """How many of the likeliest tokens to list beside each."""

    @property
    def limit(self) -> int | None:
        """Most tokens of an answer, by whichever name it was given."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


def parse(body: bytes, limits: ServeConfig) -> ChatRequest:
    """The request in `body`, within the server's limits.

    Raises:
        ApiError: 400 when it is not JSON, has unknown or wrong fields or asks for too much.
    """
    request = read(body, ChatRequest, NEUTRAL)
    protocol.check_common(request, limits)
    both = None not in (request.max_tokens, request.max_completion_tokens)
    if both and request.max_tokens != request.max_completion_tokens:
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
    for place, turn in enumerate(request.messages):
        if not is_unicode(turn.content):
            where = f"messages[{place}].content"
            raise ApiError(400, f"{where} holds a lone surrogate, which is no Unicode text", where)
    return request
