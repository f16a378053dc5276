"""/openapi.json: every route with its request, its responses and its errors, so that clients can be generated from it.

The bodies are parsed by `protocol`, whose messages name the field and the nearest name, not by FastAPI: so FastAPI does
not know them, and this document is made from the same pydantic models.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from kit19_ray import __version__
from kit19_ray.serve.api_error import Json
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.protocol import CompletionRequest
from kit19_ray.serve.tokenizing import DetokenizeRequest, TokenizeRequest


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


class Status(_Body):
    """The response of a probe."""

    status: str = Field(examples=["ok"])


_ERRORS = {
    "400": "The request is not valid JSON, has an unknown or wrong field, or asks for too much; `param` has its path.",
    "401": "The API key is missing or not known.",
    "404": "There is no such model.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "429": "Too many requests are waiting; Retry-After says when to come again.",
    "500": "A fault of the server.",
    "503": "The model is not there at the moment; Retry-After says when to come again.",
    "504": "There was no answer in time.",
}
_REQUESTS: dict[str, tuple[type[BaseModel], type[BaseModel], str, bool]] = {
    "/v1/completions": (CompletionRequest, Completion, "Complete prompts, as text or token ids", True),
    "/v1/chat/completions": (ChatRequest, ChatCompletion, "Answer a conversation", True),
    "/v1/chat/completions/render": (ChatRequest, Rendered, "The prompt that a conversation becomes", False),
    "/tokenize": (TokenizeRequest, Tokenized, "Tokens of a text or a conversation", False),
    "/detokenize": (DetokenizeRequest, Detokenized, "Text of tokens", False),
}
_READS: dict[str, tuple[type[BaseModel] | None, str, tuple[str, ...]]] = {
    "/v1/models": (ModelList, "Models that can be asked", ("401", "503")),
    "/v1/models/{name}": (Model, "One of them", ("401", "404", "503")),
    "/healthz": (Status, "Alive: the server answers", ()),
    "/readyz": (Status, "Ready: the models are loaded and decode", ("503",)),
    "/metrics": (None, "Figures of every replica, in Prometheus' text format", ()),
}
_OPEN = {"/healthz", "/readyz", "/metrics"}


@cache
def document() -> Json:
    """The OpenAPI 3.1 document; every reference in it resolves."""
    kinds = [kind for request, response, _, _ in _REQUESTS.values() for kind in (request, response)]
    kinds += [kind for kind, _, _ in _READS.values() if kind is not None] + [ErrorBody]
    unique = list(dict.fromkeys(kinds))
    references, defined = models_json_schema(
        [(kind, "validation") for kind in unique], ref_template="#/components/schemas/{model}"
    )
    schema_of = {kind: references[kind, "validation"] for kind in unique}
    paths: Json = {}
    for path, (request, response, summary, streams) in _REQUESTS.items():
        content: Json = {"application/json": {"schema": schema_of[response]}}
        if streams:
            content["text/event-stream"] = {"schema": {"type": "string"}}
        operation = _operation(path, summary, content, schema_of[ErrorBody], tuple(_ERRORS))
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[request]}},
        }
        paths[path] = {"post": operation}
    for path, (kind, summary, errors) in _READS.items():
        content = {"text/plain": {"schema": {"type": "string"}}}
        if kind is not None:
            content = {"application/json": {"schema": schema_of[kind]}}
        operation = _operation(path, summary, content, schema_of[ErrorBody], errors)
        if "{name}" in path:
            operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
        paths[path] = {"get": operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "kit19", "version": __version__, "description": "OpenAI-compatible completions."},
        "paths": paths,
        "components": {
            "schemas": defined["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(path: str, summary: str, content: Json, error: Json, errors: tuple[str, ...]) -> Json:
    responses: Json = {"200": {"description": "Success.", "content": content}}
    for status in errors:
        responses[status] = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": error}},
            **({"headers": _RETRY_AFTER} if status in ("429", "503") else {}),
        }
    name = "_".join(part for part in path.replace("{", "").replace("}", "").split("/") if part)
    made: dict[str, Any] = {"operationId": name, "summary": summary, "responses": responses}
    return made if path in _OPEN else made | {"security": [{"key": []}, {}]}


_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
