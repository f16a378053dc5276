"""A request's body as one of the request types, and what is wrong with it.

Imports neither Ray nor torch nor a web framework.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kit19_ray.errors import nearest
from kit19_ray.serve.api_error import ApiError

T = TypeVar("T", bound=BaseModel)

# Bounds on what a body costs before anything is known of it. A body within max_body_bytes may hold a hundred thousand
# keys, each of which would be compared with every known field.
MAX_KEYS = 64
MAX_PROBLEMS = 10
# Fields of OpenAI's that ask nothing of the model: for OpenAI's own books, caches and moderation. Any value passes.
IGNORED = frozenset({"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "user"})


def read(body: bytes, kind: type[T], neutral: Mapping[str, tuple[Any, ...]] | None = None) -> T:
    """The JSON object in `body` as a request of that kind.

    Args:
        neutral: parameters that are not supported, with the values that ask for nothing and so pass.

    Raises:
        ApiError: 400 when it is not JSON, or has unknown or wrong fields.
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
