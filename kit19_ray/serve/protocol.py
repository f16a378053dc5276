"""OpenAI's /v1/completions as plain data: the request and what is wrong with it, the error shape.

Imports neither Ray nor torch nor a web framework.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import nearest

Json = dict[str, Any]
T = TypeVar("T", bound=BaseModel)

MAX_STOPS = 16
MAX_LOGPROBS = 5
# Parameters of OpenAI's that this server does not have, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "suffix": ("",),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}


class ApiError(Exception):
    """A request that gets no completion.

    Args:
        status: HTTP status.
        message: what the client reads; never a traceback.
        param: the request's field at fault.
        code: OpenAI's machine-readable code, where it has one.
        retry_after: seconds after which the same request may succeed; None where it will not.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    def headers(self) -> dict[str, str]:
        """Headers of the response beside its body."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    def body(self) -> Json:
        """The error in OpenAI's shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    """How a stream is sent."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    include_usage: bool = False
    """A last chunk without choices counts the tokens."""


class CompletionRequest(BaseModel):
    """The body of POST /v1/completions. A null is the same as leaving the field out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    prompt: str | list[str] | list[int] | list[list[int]]
    """One or more prompts, as text or as token ids."""
    max_tokens: int = Field(16, ge=0)
    """0 with `echo` scores the prompt and generates nothing."""
    temperature: float = Field(1.0, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1)
    """Completions per prompt."""
    stop: str | list[str] = []
    """Generation ends before any of these; the text does not hold them."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    echo: bool = False
    """Put the prompt before the completion."""
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    """Log-probability of each token and of this many most likely ones."""
    stream: bool = False
    """Send the text as it is decoded, as server-sent events."""
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Accepted and not used."""

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_kind_of_prompt(cls, value: Any) -> Any:
        if isinstance(value, str):
            return value
        if isinstance(value, list) and value:
            if all(isinstance(part, str) for part in value) or _is_ids(value):
                return value
            if all(isinstance(part, list) and part and _is_ids(part) for part in value):
                return value
        raise ValueError("prompt must be a string, a list of strings, a list of token ids, or a list of those")

    @field_validator("stop", mode="before")
    @classmethod
    def _usable_stops(cls, value: Any) -> Any:
        return stops(value)

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, whichever way they were given."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt


def _is_ids(value: list[Any]) -> bool:
    return all(isinstance(part, int) and not isinstance(part, bool) for part in value)


def stops(value: Any) -> list[str]:
    """A request's `stop` as a list.

    Raises:
        ValueError: it is neither a text nor a list of some.
    """
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(stop, str) and stop for stop in given):
        raise ValueError("stop must be a non-empty string or a list of non-empty strings")
    if len(given) > MAX_STOPS:
        raise ValueError(f"stop has {len(given)} entries, the most is {MAX_STOPS}")
    return given


def parse(body: bytes, limits: ServeConfig) -> CompletionRequest:
    """The request in `body`, within the server's limits.

    Raises:
        ApiError: 400 when it is not JSON, has unknown or wrong fields or asks for too much; 404 for another model.
    """
    request = read(body, CompletionRequest, NEUTRAL)
    check_common(request.model, request.stop, request.stream, request.stream_options, limits)
    _check(request, limits)
    return request


def read(body: bytes, kind: type[T], neutral: Mapping[str, tuple[Any, ...]]) -> T:
    """The JSON object in `body` as a request of that kind.

    Args:
        neutral: parameters that are not supported, with the values that ask for nothing and so pass.

    Raises:
        ApiError: 400 as in `parse`.
    """
    try:
        data = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not valid JSON in UTF-8") from None
    if not isinstance(data, dict):
        raise ApiError(400, f"the body must be a JSON object, got {_json_type(data)}")
    kept = {name: value for name, value in data.items() if value is not None}
    for name, nothing in neutral.items():
        if name not in kept:
            continue
        value = kept.pop(name)
        if not any(type(value) in (type(one), int, float) and value == one for one in nothing):
            raise ApiError(400, f"{name} is not supported by this server; leave it out", name)
    try:
        return kind.model_validate(kept)
    except ValidationError as problems:
        raise _told(problems, kind) from None


def check_common(
    model: str, stop: str | list[str], stream: bool, options: StreamOptions | None, limits: ServeConfig
) -> None:
    """What both endpoints check alike.

    Raises:
        ApiError: another model (404), options of a stream where there is none, stops that are no Unicode text.
    """
    if model != limits.served_name:
        near = nearest(model, [limits.served_name])
        raise ApiError(404, f"there is no model {model[:100]!r} here{near}; see /v1/models", "model", "model_not_found")
    if options is not None and not stream:
        raise ApiError(400, "stream_options needs stream=true", "stream_options")
    if not all(is_unicode(one) for one in stop):
        raise ApiError(400, "stop holds a lone surrogate, which is no Unicode text", "stop")


def _check(request: CompletionRequest, limits: ServeConfig) -> None:
    if request.max_tokens == 0 and not request.echo:
        raise ApiError(400, "max_tokens=0 needs echo=true: without it there is nothing to return", "max_tokens")
    if request.stream and request.echo and request.logprobs is not None:
        raise ApiError(400, "echo with logprobs cannot be streamed; leave stream out", "stream")
    if request.max_tokens > limits.max_tokens:
        raise ApiError(400, f"max_tokens is {request.max_tokens}, the most is {limits.max_tokens}", "max_tokens")
    count = len(request.prompts) * request.n
    if count > limits.max_prompts:
        raise ApiError(400, f"prompts x n is {count}, the most is {limits.max_prompts}", "prompt")
    for prompt in request.prompts:
        if not prompt:
            raise ApiError(400, "prompt is empty", "prompt")
        if len(prompt) > limits.max_prompt_chars:
            unit = "characters" if isinstance(prompt, str) else "tokens"
            raise ApiError(
                400,
                f"prompt has {len(prompt)} {unit}, the most is {limits.max_prompt_chars}",
                "prompt",
                "context_length_exceeded",
            )
        if isinstance(prompt, str) and not is_unicode(prompt):
            raise ApiError(400, "prompt holds a lone surrogate, which is no Unicode text", "prompt")


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _told(problems: ValidationError, kind: type[BaseModel]) -> ApiError:
    """Every mistake in one message; the first one's field is `param`."""
    lines: list[str] = []
    params: list[str] = []
    for problem in problems.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0])[:100] if problem["loc"] else ""
        if name in params and name:
            continue  # the branches of a union each complain once
        params.append(name)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown field{nearest(name, kind.model_fields)}"
        lines.append(message if not name or message.startswith(name) else f"{name}: {message}")
    return ApiError(400, "; ".join(lines), next((p for p in params if p), None))


def models(name: str, created: int, context: int) -> Json:
    """The response body of /v1/models; `context` is the most tokens of prompt and completion."""
    entry = {"id": name, "object": "model", "created": created, "owned_by": "kit19", "max_model_len": context}
    return {"object": "list", "data": [entry]}
