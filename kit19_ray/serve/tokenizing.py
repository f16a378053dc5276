"""/tokenize and /detokenize as plain data, in vLLM's shape: OpenAI has no such endpoint."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kit19_ray.config.schema import ServeConfig
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.chat import MAX_MESSAGES, RequestMessage
from kit19_ray.serve.request_body import is_unicode, read


class TokenizeRequest(BaseModel):
    """The body of POST /tokenize: a text, or messages as the chat endpoint reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = None
    """None is the first of /v1/models."""
    prompt: str | None = None
    """A text."""
    messages: list[RequestMessage] | None = Field(None, min_length=1, max_length=MAX_MESSAGES)
    """A conversation."""
    add_special_tokens: bool = True
    """Of a text: begin with what the tokenizer puts before every text."""
    return_token_strs: bool = False
    """Give each token's text too."""


class DetokenizeRequest(BaseModel):
    """The body of POST /detokenize."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = None
    """None is the first of /v1/models."""
    tokens: list[int]
    """Token ids."""


def parse_tokenize(body: bytes, limits: ServeConfig) -> TokenizeRequest:
    """The request in `body`, within the server's limits.

    Raises:
        ApiError: 400.
    """
    request = read(body, TokenizeRequest)
    if (request.prompt is None) == (request.messages is None):
        raise ApiError(400, "give prompt or messages", "prompt")
    texts = [request.prompt] if request.prompt is not None else [turn.content for turn in request.messages or ()]
    if sum(map(len, texts)) > limits.max_prompt_chars:
        raise ApiError(400, f"the text has more than {limits.max_prompt_chars} characters", "prompt")
    if not all(map(is_unicode, texts)):
        raise ApiError(400, "the text holds a lone surrogate, which is no Unicode text", "prompt")
    return request


def parse_detokenize(body: bytes, limits: ServeConfig) -> DetokenizeRequest:
    """The request in `body`, within the server's limits.

    Raises:
        ApiError: 400.
    """
    request = read(body, DetokenizeRequest)
    if len(request.tokens) > limits.max_prompt_chars:
        raise ApiError(400, f"tokens has more than {limits.max_prompt_chars} entries", "tokens")
    return request
