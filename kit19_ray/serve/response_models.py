"""What the server answers, as pydantic models: /openapi.json is made from them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorDetail(_Body):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(_Body):
    """The body of every response that is no success."""

    error: ErrorDetail


class Usage(_Body):
    """Tokens of a response."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(_Body):
    """A completion's tokens; the lists have one entry a token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(_Body):
    """One completion of one prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(_Body):
    """The response of /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class TopLogprob(_Body):
    """A token that could have stood there."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(_Body):
    """A token of an answer."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(_Body):
    """An answer's tokens."""

    content: list[TokenLogprob] | None
    refusal: None


class AssistantMessage(_Body):
    """The answer."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Body):
    """One answer."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(_Body):
    """The response of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Model(_Body):
    """A model that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    root: str
    parent: str | None = None
    """Of an adapter, its base."""


class ModelList(_Body):
    """The response of /v1/models."""

    object: Literal["list"]
    data: list[Model]


class Rendered(_Body):
    """The response of /v1/chat/completions/render."""

    prompt: str
    prompt_tokens: int
    stop: list[str]


class Tokenized(_Body):
    """The response of /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(_Body):
    """The response of /detokenize."""

    prompt: str


class AdminEntry(_Body):
    """A name of /admin/models and what it stands for."""

    id: str
    object: Literal["model"]
    root: str
    parent: str | None
    """Of an adapter, its base."""
    state: Literal["ready", "loading", "swapping", "unloaded"]
    generation: int
    """Swaps so far."""


class AdminList(_Body):
    """The response of GET /admin/models."""

    object: Literal["list"]
    data: list[AdminEntry]


class ServerStatus(_Body):
    """The response of a probe."""

    status: str = Field(examples=["ok"])
