"""What a connection may cost before its request is known, as ASGI middleware: size, time and number of uploads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from kit19_ray.serve.api_error import ApiError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_UPLOADS = 4096
"""Bodies on their way at one time. One costs a few kilobytes until its bytes come; those are bounded too."""


class BodyLimit:
    """Reads the whole body before the request is looked at.

    413 to one of more than `max_bytes`, by its declared length or, when it declares none, by counting; 408 to one that
    is not whole after `timeout_seconds`; 429 when too many are on their way. A body that comes slowly holds nobody up:
    it has no place in the queue until it is whole.
    """

    def __init__(self, app: App, max_bytes: int, timeout_seconds: float) -> None:
        self.app = app
        self.max_bytes, self.timeout_seconds = max_bytes, timeout_seconds
        self._uploads = self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.max_bytes:
            await refuse(send, self._too_large())
            return
        if scope["method"] in ("GET", "HEAD", "OPTIONS") and declared == b"0" and b"transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        try:
            body = await self._body(receive)
        except ApiError as error:
            await refuse(send, error)
            return
        if body is None:
            return  # the client went away
        whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            if whole is not None:
                message, whole = whole, None
                return message
            return await receive()

        await self.app(scope, replay, send)

    async def _body(self, receive: Receive) -> bytes | None:
        if self._uploads >= MAX_UPLOADS or self._held > 64 * self.max_bytes:
            raise ApiError(429, "too many requests are being sent; try again later", retry_after=1)
        parts = bytearray()
        self._uploads += 1
        try:
            async with asyncio.timeout(self.timeout_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    part = message.get("body", b"")
                    parts += part
                    self._held += len(part)
                    if len(parts) > self.max_bytes:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(parts)
        except TimeoutError:
            raise ApiError(408, f"the body was not whole within {self.timeout_seconds:g} seconds") from None
        finally:
            self._uploads -= 1
            self._held -= len(parts)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body has more than {self.max_bytes} bytes")


async def refuse(send: Send, error: ApiError) -> None:
    """An answer before anything else has looked at the request; the connection ends, as the body was not read."""
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers().items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error.body()).encode()})
