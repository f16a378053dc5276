"""OpenAI's /v1/completions as plain data: the request and what is wrong with it.

Imports neither Ray nor torch nor a web framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import nearest, quote
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.request_body import is_unicode, read

MAX_STOPS = 16
MAX_LOGPROBS = 5
MAX_BIASES = 1024
# Parameters that this server does not have, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {"suffix": ("",), "best_of": (1,)}


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
    """One or more prompts, as text or as token ids. A special token is given by its id: its name in a text is text."""
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
        raise ApiError(404, f"there is no model {quote(name)} here{near}; see /v1/models", "model", "model_not_found")


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
