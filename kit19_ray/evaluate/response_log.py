"""What a backend said, kept in storage as it comes, so that an evaluation that was cut off asks only what is missing.

A file below the log's folder holds the responses of a few seconds, a line each under the hash of what was asked. No
line is written twice: a request that is there is answered from there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np

from kit19_ray.evaluate.actors import Backend, GenerateOptions, OnResults
from kit19_ray.io import storage
from kit19_ray.lm.decoding import DecodedText
from kit19_ray.lm.prefix_tree import Request
from kit19_ray.utils.console import say

_SECONDS = 5.0  # between writes: an evaluation that is killed loses so much at most


class Response(TypedDict, total=False):
    """A line of the log."""

    key: str
    loglikelihood: tuple[float, bool]
    text: str
    finish_reason: str


class ResponseLog:
    """A backend that remembers.

    Args:
        uri: the log's folder; what lies there is read.
        seconds: between two writes.
    """

    def __init__(self, backend: Backend, uri: str, seconds: float = _SECONDS) -> None:
        self.backend = backend
        self.can_score = backend.can_score
        self._uri, self._seconds = uri, seconds
        self._known: dict[str, Response] = {}
        files = storage.list_files(uri)
        for info in files:
            for line in storage.read_text(storage.join(uri, info.path)).splitlines():
                response: Response = json.loads(line)
                self._known[response["key"]] = response
        self._next = len(files)
        self._unwritten: list[Response] = []
        self._written = time.monotonic()

    def loglikelihoods(
        self, requests: Sequence[Request], what: str, on_results: OnResults | None = None
    ) -> list[tuple[float, bool]]:
        """See `Backend.loglikelihoods`."""

        def ask(numbers: list[int], heard: OnResults) -> None:
            self.backend.loglikelihoods([requests[n] for n in numbers], what, heard)

        found = self._answered(
            _keys("loglikelihood", requests),
            ask,
            lambda value: {"loglikelihood": (value[0], value[1])},
            what,
            on_results,
        )
        return [(float(r["loglikelihood"][0]), bool(r["loglikelihood"][1])) for r in found]

    def generate(
        self, prompts: Sequence[list[int]], options: GenerateOptions, what: str, on_results: OnResults | None = None
    ) -> list[DecodedText]:
        """See `Backend.generate`; of a completion the text and the reason of its end are kept."""

        def ask(numbers: list[int], heard: OnResults) -> None:
            self.backend.generate([prompts[n] for n in numbers], options, what, heard)

        found = self._answered(
            _keys(f"generate {json.dumps(options, sort_keys=True)}", [(prompt,) for prompt in prompts]),
            ask,
            lambda value: {"text": value.text, "finish_reason": value.finish_reason},
            what,
            on_results,
        )
        return [DecodedText(text=r["text"], finish_reason=r["finish_reason"]) for r in found]  # type: ignore[arg-type]

    def _answered(
        self,
        keys: list[str],
        ask: Callable[[list[int], OnResults], None],
        response: Callable[[Any], Response],
        what: str,
        on_results: OnResults | None,
    ) -> list[Response]:
        missing = [number for number, key in enumerate(keys) if key not in self._known]
        if len(missing) < len(keys):
            say(f"evaluate: {len(keys) - len(missing):,} of {len(keys):,} {what} were answered before")

        def heard(places: list[int], results: list[Any]) -> None:
            for place, result in zip(places, results, strict=True):
                key = keys[missing[place]]
                self._known[key] = {"key": key, **response(result)}
                self._unwritten.append(self._known[key])
            if time.monotonic() - self._written >= self._seconds:
                self.flush()
            if on_results is not None:
                on_results([missing[place] for place in places], results)

        try:
            if missing:
                ask(missing, heard)
        finally:
            self.flush()
        return [self._known[key] for key in keys]

    def flush(self) -> None:
        """Writes what was not written yet, as one file."""
        if self._unwritten:
            text = "".join(json.dumps(response, ensure_ascii=False) + "\n" for response in self._unwritten)
            storage.write_text(storage.join(self._uri, f"{self._next:06d}.jsonl"), text)
            self._next += 1
            self._unwritten = []
        self._written = time.monotonic()


def _keys(kind: str, requests: Sequence[Sequence[Sequence[int]]]) -> list[str]:
    """A name for each request; equal ones are told apart by their order, since sampling may answer them unlike."""
    seen: Counter[bytes] = Counter()
    keys = []
    for parts in requests:
        digest = hashlib.blake2b(kind.encode(), digest_size=12)
        for part in parts:
            digest.update(b"|" + np.asarray(part, np.int64).tobytes())
        found = digest.digest()
        keys.append(f"{found.hex()}-{seen[found]}")
        seen[found] += 1
    return keys
