"""A client of a few lines, for `kit19 run --ask` and for scripts."""

from __future__ import annotations

import os
from collections.abc import Sequence

import httpx

from kit19_ray.errors import ServeError
from kit19_ray.utils.json_types import Json


def ask(
    url: str,
    model: str,
    prompt: str,
    *,
    max_tokens: int = 64,
    stop: Sequence[str] = (),
    timeout_seconds: float = 120,
    api_key: str | None = None,
) -> str:
    """The greedy completion of `prompt`.

    Args:
        url: the server, such as http://127.0.0.1:8000.
        prompt: the raw text; render it with the prompt wrapper the model was trained on. No special token is added.
        api_key: where the server wants one; None takes OPENAI_API_KEY of the environment, as OpenAI's clients do.

    Raises:
        ServeError: the server refuses the request, or there is none.
    """
    body: Json = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    body["add_special_tokens"] = False
    if stop:
        body["stop"] = list(stop)
    answer = post(f"{url}/v1/completions", body, timeout_seconds, api_key)
    return str(answer["choices"][0]["text"])


def post(url: str, body: Json, timeout_seconds: float = 120, api_key: str | None = None) -> Json:
    """The JSON response to a JSON request.

    Raises:
        ServeError: as `ask`.
    """
    key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.post(url, json=body, headers=headers, timeout=timeout_seconds)
        if response.is_error:
            raise ServeError(f"{url}: {response.status_code}, {_message(response)}")
        return dict(response.json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServeError(f"{url}: {error}", hint="is the server running? `kit19 serve` starts it") from None


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
