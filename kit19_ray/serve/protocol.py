"""OpenAI's /v1/completions as plain data: the request and what is wrong with it, the error shape.

Imports neither Ray nor torch nor a web framework.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import nearest

Json = dict[str, Any]
T = TypeVar("T", bound=BaseModel)

MAX_STOPS = 16
MAX_LOGPROBS = 5
MAX_BIASES = 1024
# Bounds on what a body costs before anything is known of it. A body within max_body_bytes may hold a hundred thousand
# keys, each of which would be compared with every known field.
MAX_KEYS = 64
MAX_PROBLEMS = 10
# Fields of OpenAI's that ask nothing of the model: for OpenAI's own books, caches and moderation. Any value passes.
IGNORED = frozenset({"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "user"})
# Parameters that this server does not have, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {"suffix": ("",), "best_of": (1,)}


class ApiError(Exception):
    """A request that gets no completion.

    Args:
        status: HTTP status.
        message: what the client reads; never a traceback.
        param: the request's field at fault, by its full path.
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

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels between processes."""
        return type(self), (self.status, self.message, self.param, self.code, self.retry_after)

    def headers(self) -> dict[str, str]:
        """Headers of the response beside its body."""
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return headers if self.retry_after is None else headers | {"Retry-After": str(self.retry_after)}

    def body(self) -> Json:
        """The error in OpenAI's shape."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class StreamOptions(BaseModel):
    """How a stream is sent."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    include_usage: bool = False
    """A last chunk without choices counts the tokens."""
    include_obfuscation: bool = True
    """Accepted and not used: nothing is padded here."""


def _biases(value: Any) -> Any:
    """OpenAI's `{"token id as text": bias}` as numbers."""
    if not isinstance(value, dict):
        raise ValueError("logit_bias must be an object of token ids with numbers from -100 to 100")
    if len(value) > MAX_BIASES:
        raise ValueError(f"logit_bias has {len(value)} entries, the most is {MAX_BIASES}")
    biases: dict[int, float] = {}
    for token, bias in value.items():
        number = isinstance(bias, (int, float)) and not isinstance(bias, bool) and -100 <= bias <= 100
        if (
            not (isinstance(token, int) or (isinstance(token, str) and token.isdecimal() and len(token) < 10))
            or not number
        ):
            raise ValueError("logit_bias must be an object of token ids with numbers from -100 to 100")
        biases[int(token)] = float(bias)
    return biases


def stops(value: Any) -> Any:
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


class SamplingRequest(BaseModel):
    """What both endpoints take alike. A null is the same as leaving the field out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    """A name that /v1/models lists."""
    temperature: float = Field(1.0, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample among the likeliest tokens that together have this probability."""
    top_k: int = Field(0, ge=0)
    """Sample among this many likeliest tokens; 0 is all. Not OpenAI's; vLLM's name."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Sample among tokens at least this times as likely as the likeliest. Not OpenAI's; vLLM's name."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtracted from the logit of tokens that were generated already."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtracted as often as the token was generated."""
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    """Above 1 makes tokens of prompt and answer less likely. Not OpenAI's; vLLM's name."""
    logit_bias: Annotated[dict[int, float], BeforeValidator(_biases)] = {}
    """Added to the logits of tokens, by their ids."""
    n: int = Field(1, ge=1)
    """Answers to each prompt."""
    stop: Annotated[str | list[str], BeforeValidator(stops)] = []
    """Generation ends before any of these; the text does not hold them."""
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    """The same seed gives the same answer."""
    ignore_eos: bool = False
    """Go on to max_tokens. Not OpenAI's; vLLM's name, for benchmarks."""
    stream: bool = False
    """Send the text as it is decoded, as server-sent events."""
    stream_options: StreamOptions | None = None


class CompletionRequest(SamplingRequest):
    """The body of POST /v1/completions. A null is the same as leaving the field out."""

    prompt: str | list[str] | list[int] | list[list[int]]
    """One or more prompts, as text or as token ids."""
    max_tokens: int = Field(16, ge=0)
    """0 with `echo` scores the prompt and generates nothing."""
    echo: bool = False
    """Put the prompt before the completion."""
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    """Log-probability of each token and of this many most likely ones."""
    add_special_tokens: bool = True
    """Begin a prompt of text with what the tokenizer puts before every text (BOS, where it has one). Not OpenAI's."""

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


def parse(body: bytes, limits: ServeConfig) -> CompletionRequest:
    """The request in `body`, within the server's limits.

    Raises:
        ApiError: 400 when it is not JSON, has unknown or wrong fields or asks for too much.
    """
    request = read(body, CompletionRequest, NEUTRAL)
    check_common(request, limits)
    _check(request, limits)
    return request


def read(body: bytes, kind: type[T], neutral: Mapping[str, tuple[Any, ...]] | None = None) -> T:
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
    if len(data) > MAX_KEYS:
        raise ApiError(400, f"the body has {len(data)} fields, the most is {MAX_KEYS}")
    kept = {name: value for name, value in data.items() if value is not None and name not in IGNORED}
    for name, nothing in (neutral or {}).items():
        if name not in kept:
            continue
        value = kept.pop(name)
        if not any(type(value) in (type(one), int, float) and value == one for one in nothing):
            raise ApiError(400, f"{name} is not supported by this server; leave it out", name, "unsupported_parameter")
    try:
        return kind.model_validate(kept)
    except ValidationError as problems:
        raise refusal(problems, kind) from None


def check_common(request: SamplingRequest, limits: ServeConfig) -> None:
    """What both endpoints check alike.

    Raises:
        ApiError: options of a stream where there is none, stops that are no Unicode text.
    """
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options needs stream=true", "stream_options")
    if not all(is_unicode(stop) for stop in request.stop):
        raise ApiError(400, "stop holds a lone surrogate, which is no Unicode text", "stop")


def check_model(name: str, names: Sequence[str]) -> None:
    """Refuses a model that is not served.

    Raises:
        ApiError: 404 with the nearest name.
    """
    if name not in names:
        near = nearest(name[:100], names)
        raise ApiError(404, f"there is no model {name[:100]!r} here{near}; see /v1/models", "model", "model_not_found")


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


def path(location: Sequence[int | str]) -> str:
    """Where in the body a problem is: `messages[1].name`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part[:100]}"
    return text


def refusal(problems: ValidationError, kind: type[BaseModel]) -> ApiError:
    """The first mistakes in one message; the first one's path is `param`."""
    lines: list[str] = []
    params: list[str] = []
    for problem in problems.errors(include_url=False, include_input=False):
        # The branches of a union each complain, with the branch's name behind the field's.
        location = list(problem["loc"])
        if location and location[0] in ("prompt", "stop"):
            location = location[:1]
        name = path(location)
        if name in params and name:
            continue
        params.append(name)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            near = nearest(str(location[-1])[:100], kind.model_fields) if len(location) == 1 else ""
            message = f"unknown field{near}"
        lines.append(message if not name or message.startswith(name) else f"{name}: {message}")
        if len(lines) == MAX_PROBLEMS:
            lines.append("and more")
            break
    return ApiError(400, "; ".join(lines), next((p for p in params if p), None))
