"""Chunks of text that never have to be taken back, and the events they are sent as."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.serve import events
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.detokenizer import Detokenizer
from kit19_ray.serve.metrics import MemoryRecorder, ServeMetrics
from kit19_ray.utils.json_types import Json


@given(st.text(max_size=30), st.lists(st.text("#가나 \n", min_size=1, max_size=4), max_size=2))
def test_what_is_let_go_is_a_beginning_of_the_text_and_holds_no_stop(
    tiny_tokenizer: Any, text: str, stop: list[str]
) -> None:
    cut = min((place for s in stop if (place := text.find(s)) >= 0), default=len(text))
    detokenizer, sent = Detokenizer(tiny_tokenizer, stop), ""
    for token in tiny_tokenizer.encode(text, add_special_tokens=False):
        sent += detokenizer.add(token)
        assert text[:cut].startswith(sent)
    if not stop and "\ufffd" not in text:
        assert sent == text


def test_a_character_of_several_tokens_is_let_go_whole(tiny_tokenizer: Any) -> None:
    detokenizer = Detokenizer(tiny_tokenizer, ())
    ids = tiny_tokenizer.encode("뷁", add_special_tokens=False)
    assert [detokenizer.add(token) for token in ids] == ["", "", "뷁"]


def test_what_may_begin_a_stop_waits_until_it_does_not(tiny_tokenizer: Any) -> None:
    detokenizer = Detokenizer(tiny_tokenizer, ("##!",))
    ids = [tiny_tokenizer.encode(c, add_special_tokens=False)[0] for c in "a##b"]
    assert [detokenizer.add(token) for token in ids] == ["a", "", "", "##b"]


def sent(chunks: AsyncIterator[Json], recorder: MemoryRecorder, timeout: float = 5) -> str:
    async def go() -> str:
        metrics = ServeMetrics(recorder)
        with ExitStack() as held:
            held.enter_context(metrics.one_in_progress())
            made: Any = await events.response(chunks, metrics, "kit19", timeout, held)
        return b"".join([made_bytes(part) async for part in made.body_iterator]).decode()

    return asyncio.run(go())


def made_bytes(part: Any) -> bytes:
    return bytes(part.encode()) if hasattr(part, "encode") else bytes(part)


async def chunks(*items: Json | Exception | float) -> AsyncIterator[Json]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        if isinstance(item, float):
            await asyncio.sleep(item)
        else:
            yield item


def test_a_stream_ends_with_done_and_is_counted() -> None:
    recorder = MemoryRecorder()
    assert sent(chunks({"a": "가"}, {"b": 2}), recorder) == 'data: {"a":"가"}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n'
    assert recorder.values["kit19_requests", "kit19", "200"] == 1
    assert recorder.values[("kit19_requests_in_progress",)] == 0


FAILURES = [
    (RuntimeError("secret path"), 500, "the server failed"),
    (ApiError(429, "later"), 429, "later"),
    (9.0, 504, "no answer within 0.1 seconds"),
]


@pytest.mark.parametrize(("failure", "status", "message"), FAILURES)
def test_an_error_within_a_stream_is_an_event(failure: Exception | float, status: int, message: str) -> None:
    recorder = MemoryRecorder()
    text = sent(chunks({"a": 1}, failure), recorder, 0.1)
    first, error, rest = text.split("\n\n")
    assert first == 'data: {"a":1}' and rest == "", "no [DONE] follows"
    kind, data = error.split("\n")
    assert kind == "event: error" and message in json.loads(data.removeprefix("data: "))["error"]["message"]
    assert "secret" not in text
    assert recorder.values["kit19_requests", "kit19", str(status)] == 1


@pytest.mark.parametrize(("failure", "status", "message"), FAILURES)
def test_an_error_before_the_first_chunk_is_a_plain_response(
    failure: Exception | float, status: int, message: str
) -> None:
    recorder = MemoryRecorder()
    with pytest.raises(ApiError, match=message) as caught:
        sent(chunks(failure, {"a": 1}), recorder, 0.1)
    assert caught.value.status == status and "secret" not in caught.value.message
    assert recorder.values[("kit19_requests_in_progress",)] == 0


def test_a_client_that_leaves_is_counted_and_ends_the_work() -> None:
    recorder, ended = MemoryRecorder(), []

    async def endless() -> AsyncIterator[Json]:
        try:
            while True:
                yield {}
                await asyncio.sleep(0)
        finally:
            ended.append(True)

    async def go() -> None:
        metrics, held = ServeMetrics(recorder), ExitStack()
        held.enter_context(metrics.one_in_progress())
        made: Any = await events.response(endless(), metrics, "kit19", 5, held)
        await made.body_iterator.__anext__()
        await made.body_iterator.aclose()

    asyncio.run(go())
    assert ended and recorder.values["kit19_disconnects", "kit19"] == 1
    assert recorder.values[("kit19_requests_in_progress",)] == 0
