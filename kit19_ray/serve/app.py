"""The HTTP face: routes, limits and errors. What answers is behind `Service`, so it is tested without Ray."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from kit19_ray import __version__
from kit19_ray.config.schema import ServeConfig
from kit19_ray.serve import chat, events, metrics, page, protocol
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.limits import BodyLimit
from kit19_ray.serve.protocol import ApiError, CompletionRequest, Json

log = logging.getLogger("ray.serve")


class Service(Protocol):
    """What the routes need of a replica."""

    limits: ServeConfig
    metrics: metrics.Metrics
    created: int
    """Unix time the model was loaded."""
    context: int
    """Most tokens of prompt and completion together."""

    async def ready(self) -> bool:
        """Whether the model is loaded and decodes."""

    async def complete(self, request: CompletionRequest | ChatRequest) -> Json:
        """The response body; raises ApiError."""

    def stream(self, request: CompletionRequest | ChatRequest) -> AsyncIterator[Json]:
        """The response's chunks; raises ApiError at once for a prompt that does not fit."""

    def prompt(self, request: ChatRequest) -> Json:
        """The prompt that messages become; raises ApiError."""


def build(service: Service) -> FastAPI:
    """The ASGI application in front of `service`. Every error it answers with is in OpenAI's shape."""
    # No page of interactive documentation: FastAPI's loads scripts from elsewhere. /openapi.json stays.
    app = FastAPI(title="kit19", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=service.limits.max_body_bytes)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)

    @app.get("/healthz")
    async def healthz() -> Json:
        """Alive: this process answers. A model that is slow or still being loaded does not change it."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Json:
        """Ready: the model behind this is loaded and decodes, so traffic may come."""
        if not await service.ready():
            raise ApiError(503, "the model is not ready", code="not_ready", retry_after=1)
        return {"status": "ready"}

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    @app.get("/v1/models")
    async def models() -> Json:
        return protocol.models(service.limits.served_name, service.created, service.context)

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Json:
        if name != service.limits.served_name:
            raise ApiError(404, f"there is no model {name[:100]!r} here; see /v1/models", "model", "model_not_found")
        entry: Json = protocol.models(name, service.created, service.context)["data"][0]
        return entry

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return page.response()

    @app.post("/v1/completions", openapi_extra=_schema(CompletionRequest))
    async def completions(request: Request) -> Response:
        return await _answer(service, await request.body(), protocol.parse)

    @app.post("/v1/chat/completions", openapi_extra=_schema(ChatRequest))
    async def chat_completions(request: Request) -> Response:
        return await _answer(service, await request.body(), chat.parse)

    @app.post("/v1/chat/completions/render", openapi_extra=_schema(ChatRequest))
    async def render(request: Request) -> Json:
        """The prompt the same body is answered with: not OpenAI's, for those who want to see what the model reads."""
        return service.prompt(chat.parse(await request.body(), service.limits))

    return app


def _schema(kind: type[CompletionRequest] | type[ChatRequest]) -> Json:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}}


async def _answer(
    service: Service, body: bytes, parse: Callable[[bytes, ServeConfig], CompletionRequest | ChatRequest]
) -> Response:
    start = time.monotonic()
    try:
        request = _admitted(service, body, parse)
        if request.stream:
            chunks = service.stream(request)
            return events.response(chunks, service.metrics, service.limits.request_timeout_seconds)
        answer = await _whole(service, request)
    except ApiError as error:
        service.metrics.answered(error.status)
        raise
    except asyncio.CancelledError:
        service.metrics.disconnects.inc()
        raise
    service.metrics.answered(200)
    service.metrics.seconds.observe(time.monotonic() - start)
    return JSONResponse(answer)


def _admitted(
    service: Service, body: bytes, parse: Callable[[bytes, ServeConfig], CompletionRequest | ChatRequest]
) -> CompletionRequest | ChatRequest:
    if service.metrics.in_progress >= service.limits.max_queue:
        raise ApiError(429, f"{service.limits.max_queue} requests are waiting already; try again later")
    return parse(body, service.limits)


async def _whole(service: Service, request: CompletionRequest | ChatRequest) -> Json:
    timeout = service.limits.request_timeout_seconds
    with service.metrics.one_in_progress():
        try:
            return await asyncio.wait_for(service.complete(request), timeout)
        except TimeoutError:
            raise events.too_late(timeout) from None
        except ApiError:
            raise
        except Exception:  # a fault of ours becomes a response here, and in events.py
            log.exception("a completion failed")
            raise events.fault() from None


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers())


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the router itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    message: Any = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return JSONResponse(
        ApiError(error.status_code, message).body(), status_code=error.status_code, headers=error.headers
    )
