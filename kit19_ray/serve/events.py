"""Server-sent events: a response's chunks as they come, `data: [DONE]` at the end, an error where it happens."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from kit19_ray.serve.metrics import Metrics
from kit19_ray.serve.protocol import ApiError, Json

log = logging.getLogger("ray.serve")

# Proxies must not gather what is sent piece by piece.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def response(chunks: AsyncIterator[Json], metrics: Metrics, timeout_seconds: float) -> StreamingResponse:
    """The chunks as an event stream.

    An error after the first byte cannot change the status any more: it is an event `error` with OpenAI's error body,
    and no `[DONE]` follows. A client that leaves ends the chunks' iterator.

    Args:
        timeout_seconds: for all of it.
    """
    return StreamingResponse(_events(chunks, metrics, timeout_seconds), media_type="text/event-stream", headers=HEADERS)


async def _events(chunks: AsyncIterator[Json], metrics: Metrics, timeout_seconds: float) -> AsyncIterator[bytes]:
    start = time.monotonic()
    status = 0  # of a client that left
    with metrics.one_in_progress():
        try:
            while True:
                left = timeout_seconds - (time.monotonic() - start)
                try:
                    chunk = await asyncio.wait_for(_next(chunks), max(0.0, left))
                except StopAsyncIteration:
                    break
                yield _event(chunk)
            yield b"data: [DONE]\n\n"
            status = 200
            metrics.seconds.observe(time.monotonic() - start)
        except TimeoutError:
            status = 504
            yield b"event: error\n" + _event(too_late(timeout_seconds).body())
        except Exception as error:  # a fault of ours becomes an event here, and a response in app.py
            told = error if isinstance(error, ApiError) else fault()
            if told is not error:
                log.exception("a stream failed")
            status = told.status
            yield b"event: error\n" + _event(told.body())
        finally:
            if status:
                metrics.answered(status)
            else:
                metrics.disconnects.inc()
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()


async def _next(chunks: AsyncIterator[Json]) -> Json:
    """The next chunk; `anext` gives an awaitable that is no coroutine, which `wait_for` does not take."""
    return await chunks.__anext__()


def too_late(timeout_seconds: float) -> ApiError:
    """What a request is told that takes too long."""
    return ApiError(504, f"no answer within {timeout_seconds:g} seconds", code="timeout")


def fault() -> ApiError:
    """What a request is told that meets a fault of ours; nothing of it is shown."""
    return ApiError(500, "the server failed on this request; its log says why")


def _event(body: Json) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
