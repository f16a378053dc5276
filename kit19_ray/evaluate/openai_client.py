"""Requests to an OpenAI-compatible server: retried where that helps, in the user's words where it does not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from kit19_ray.errors import EvaluateError, quote
from kit19_ray.redaction import first_line
from kit19_ray.utils.json_types import Json
from kit19_ray.utils.proxies import usable_proxies

_TIMEOUT = httpx.Timeout(600.0, connect=20.0)
_TRIES = 5
_SHOWN = 200  # characters of a server's own message
_BUSY = (408, 409, 429, 500, 502, 503, 504)

T = TypeVar("T")


class EndpointRefusal(EvaluateError):
    """The server understood a request and will not answer it."""


class OpenAIClient:
    """One server.

    Args:
        url: of its API, such as http://127.0.0.1:8000/v1.
        key: the config key that names it, for messages.
        environment: variables that may hold the API key, the first that is set.
        concurrency: requests at once.

    Raises:
        EvaluateError: the URL is none, or holds a password.
        UserError: the environment names a proxy that cannot be used.
    """

    def __init__(self, url: str, key: str, environment: Sequence[str], concurrency: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EvaluateError(f"{key}: {quote(url)} is no http:// or https:// URL")
        if parts.username or parts.password or parts.query:
            raise EvaluateError(
                f"{key}: the URL of {parts.hostname} holds a secret or a query",
                hint=f"put the key into the environment variable {environment[0]}",
            )
        self.url, self._key, self._environment = url.rstrip("/"), key, tuple(environment)
        self._concurrency = concurrency
        secret = next((os.environ[name] for name in environment if os.environ.get(name)), None)
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        limits = httpx.Limits(max_connections=concurrency)
        with usable_proxies():
            self._http = httpx.Client(timeout=_TIMEOUT, headers=headers, limits=limits)

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def only_model(self) -> str:
        """The name of the one model that the server lists.

        Raises:
            EvaluateError: it lists none or several.
        """
        found = [str(model.get("id")) for model in self._send("GET", "models", None).get("data", [])]
        if len(found) != 1:
            listed = ", ".join(found[:8]) or "no model"
            raise EvaluateError(f"{self._key}_model is not set, and {self.url} serves {listed}")
        return found[0]

    def post(self, path: str, body: Json) -> Json:
        """The answer to one request.

        Raises:
            Refused: a 4xx.
            EvaluateError: the server cannot be reached, or fails again and again.
        """
        return self._send("POST", path, body)

    def each(self, calls: Sequence[Callable[[], T]], on_result: Callable[[int, T], None]) -> None:
        """Makes the calls, several at once; their results come in any order, each with its call's number."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = {pool.submit(call): number for number, call in enumerate(calls)}
            try:
                for future in as_completed(futures):
                    on_result(futures[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _send(self, method: str, path: str, body: Json | None) -> Json:
        said = ""
        for turn in range(_TRIES):
            if turn:
                time.sleep(min(2.0**turn / 4, 8.0))
            try:
                response = self._http.request(method, f"{self.url}/{path}", json=body)
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {first_line(error, _SHOWN)}"
                continue
            if response.status_code in _BUSY:
                said = f"{response.status_code}: {_message(response)}"
                continue
            if response.status_code in (401, 403):
                raise EvaluateError(
                    f"{self._key}: {self.url} answers {response.status_code}: {_message(response)}",
                    hint=f"its API key is read from {' or '.join(self._environment)}",
                )
            if response.is_error:
                raise EndpointRefusal(
                    f"{self._key}: {self.url}/{path} answers {response.status_code}: {_message(response)}"
                )
            try:
                found = response.json()
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise EvaluateError(f"{self._key}: {self.url}/{path} answers no JSON object: {quote(response.text)}")
            return found
        raise EvaluateError(f"{self._key}: {self.url} does not answer, after {_TRIES} tries: {said}")


def _message(response: httpx.Response) -> str:
    try:
        error = response.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:_SHOWN]
    except (json.JSONDecodeError, KeyError, TypeError):
        return response.text[:_SHOWN]
