"""Server-sent events: a response's chunks as they come, `data: [DONE]` at the end, an error where it happens."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.metrics import ServeMetrics
from kit19_ray.utils.json_types import Json

log = logging.getLogger("ray.serve")

_PING_SECONDS = 15  # a comment while nothing comes, so that proxies do not take the connection for dead


async def response(
    chunks: AsyncIterator[Json], metrics: ServeMetrics, model: str, timeout_seconds: float, held: ExitStack
) -> Response:
    """The chunks as an event stream, once the first is there: until then a refusal is a plain response.

    An error after the first byte cannot change the status any more: it is an event `error` with OpenAI's error body,
    and no `[DONE]` follows. A client that leaves ends the chunks' iterator.

    Args:
        timeout_seconds: for all of it.
        held: what is held while the stream lasts; it is taken over with the first chunk.

    Raises:
        ApiError: before the first chunk.
    """
    start = time.monotonic()
    try:
        async with asyncio.timeout(timeout_seconds):
            first = await _next(chunks)
    except BaseException as error:
        await _close(chunks)
        if isinstance(error, TimeoutError):
            raise too_late(timeout_seconds) from None
        if isinstance(error, Exception) and not isinstance(error, ApiError):
            log.exception("a stream failed")
            raise fault() from None
        raise

    kept = held.pop_all()

    async def events() -> AsyncIterator[ServerSentEvent]:
        status = 0  # of a client that left
        try:
            yield _event(first)
            while True:
                left = timeout_seconds - (time.monotonic() - start)
                try:
                    async with asyncio.timeout(max(0.0, left)):
                        chunk = await _next(chunks)
                except StopAsyncIteration:
                    break
                yield _event(chunk)
            yield ServerSentEvent(data="[DONE]", sep="\n")
            status = 200
            metrics.record("kit19_request_seconds", time.monotonic() - start, model=model)
        except TimeoutError:
            status = 504
            yield _event(too_late(timeout_seconds).body(), "error")
        except Exception as error:  # a fault of ours becomes an event here, and a response in app.py
            told = error if isinstance(error, ApiError) else fault()
            if told is not error:
                log.exception("a stream failed")
            status = told.status
            yield _event(told.body(), "error")
        finally:
            if status:
                metrics.record("kit19_requests", model=model, status=str(status))
            else:
                metrics.record("kit19_disconnects", model=model)
            kept.close()
            await _close(chunks)

    # Proxies must not gather what is sent piece by piece; EventSourceResponse says so in its headers.
    return EventSourceResponse(events(), ping=_PING_SECONDS, sep="\n")


async def _next(chunks: AsyncIterator[Json]) -> Json:
    """The next chunk."""
    return await chunks.__anext__()


async def _close(chunks: AsyncIterator[Json]) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()


def too_late(timeout_seconds: float) -> ApiError:
    """What a request is told that takes too long."""
    return ApiError(504, f"no answer within {timeout_seconds:g} seconds", code="timeout")


def fault() -> ApiError:
    """What a request is told that meets a fault of ours; nothing of it is shown."""
    return ApiError(500, "the server failed on this request; its log says why")


def _event(body: Json, event: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(data=json.dumps(body, ensure_ascii=False, separators=(",", ":")), event=event, sep="\n")
