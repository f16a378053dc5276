"""A client of a few lines, without a dependency, for `kit19 run --ask` and for scripts."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from kit19_ray.errors import ServeError


def ask(
    url: str, model: str, prompt: str, *, max_tokens: int = 64, stop: Sequence[str] = (), timeout_seconds: float = 120
) -> str:
    """The greedy completion of `prompt`.

    Args:
        url: the server, such as http://127.0.0.1:8000.
        prompt: the raw text; render it with the prompt wrapper the model was trained on.

    Raises:
        ServeError: the server refuses the request, or there is none.
    """
    body: dict[str, Any] = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    if stop:
        body["stop"] = list(stop)
    answer = post(f"{url}/v1/completions", body, timeout_seconds)
    return str(answer["choices"][0]["text"])


def post(url: str, body: dict[str, Any], timeout_seconds: float = 120) -> dict[str, Any]:
    """The JSON response to a JSON request.

    Raises:
        ServeError: as `ask`.
    """
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as error:
        with error:
            raise ServeError(f"{url}: {error.code}, {_message(error.read())}") from None
    except (OSError, ValueError) as error:
        raise ServeError(f"{url}: {error}", hint="is the server running? `kit19 serve` starts it") from None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
