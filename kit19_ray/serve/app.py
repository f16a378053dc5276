"""The HTTP face: routes, limits and errors. What answers is behind `Service`, so it is tested without Ray."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from kit19_ray import __version__
from kit19_ray.config.schema import ServeConfig
from kit19_ray.serve import admin, chat, events, metrics, openapi, page, protocol, tokenizing
from kit19_ray.serve.access import Access
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.keys import ApiKeys
from kit19_ray.serve.limits import BodyLimit
from kit19_ray.serve.protocol import CompletionRequest
from kit19_ray.serve.tokenizing import DetokenizeRequest, TokenizeRequest
from kit19_ray.utils.json_types import Json

log = logging.getLogger("ray.serve")

Parse = Callable[[bytes, ServeConfig], CompletionRequest | ChatRequest]


class ModelService(Protocol):
    """What the routes need of the models."""

    limits: ServeConfig
    metrics: metrics.ServeMetrics
    keys: ApiKeys | None
    admin_keys: ApiKeys

    @property
    def registry(self) -> admin.Registry:
        """The models by name, for /admin."""

    @property
    def names(self) -> list[str]:
        """Models that can be asked, the default first."""

    async def models(self) -> list[Json]:
        """The entries of /v1/models."""

    async def ready(self) -> bool:
        """Whether every model is loaded and decodes."""

    async def complete(self, request: CompletionRequest | ChatRequest) -> Json:
        """The response body; raises ApiError."""

    def stream(self, request: CompletionRequest | ChatRequest) -> AsyncIterator[Json]:
        """The response's chunks; raises ApiError before the first for a prompt that does not fit."""

    async def prompt(self, request: ChatRequest) -> Json:
        """The prompt that messages become; raises ApiError."""

    async def tokenize(self, request: TokenizeRequest) -> Json:
        """Tokens of a text; raises ApiError."""

    async def detokenize(self, request: DetokenizeRequest) -> Json:
        """Text of tokens; raises ApiError."""

    async def scrape(self) -> str:
        """The metrics of every replica, in Prometheus' text format."""


def build(service: ModelService) -> FastAPI:
    """The ASGI application in front of `service`. Every error it answers with is in OpenAI's shape."""
    # No page of interactive documentation: FastAPI's loads scripts from elsewhere. /openapi.json stays.
    app = FastAPI(title="kit19", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    limits = service.limits
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes, timeout_seconds=limits.body_timeout_seconds)
    app.add_middleware(Access, keys=service.keys, admin_keys=service.admin_keys)
    if limits.cors_origins:  # outermost: a page of such an origin can read a refusal too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(limits.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)
    app.openapi = openapi.document  # type: ignore[method-assign]

    app.include_router(admin.routes(service))

    @app.get("/healthz")
    async def healthz() -> Json:
        """Alive: this process answers. A model that is slow or still being loaded does not change it."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Json:
        """Ready: the models behind this are loaded and decode, so traffic may come."""
        if not await service.ready():
            raise ApiError(503, "the model is not ready", code="not_ready", retry_after=1)
        return {"status": "ready"}

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(await service.scrape(), media_type=metrics.CONTENT_TYPE)

    @app.get("/v1/models")
    async def models() -> Json:
        return {"object": "list", "data": await service.models()}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Json:
        protocol.check_model(name, service.names)
        return next(entry for entry in await service.models() if entry["id"] == name)

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return page.response()

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await _answer(service, await request.body(), protocol.parse)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await _answer(service, await request.body(), chat.parse)

    @app.post("/v1/chat/completions/render")
    async def render(request: Request) -> Json:
        """The prompt the same body is answered with: not OpenAI's, for those who want to see what the model reads."""
        return await service.prompt(await _parsed(service, await request.body(), chat.parse))

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Json:
        return await service.tokenize(await _parsed(service, await request.body(), tokenizing.parse_tokenize))

    @app.post("/detokenize")
    async def detokenize(request: Request) -> Json:
        return await service.detokenize(await _parsed(service, await request.body(), tokenizing.parse_detokenize))

    return app


async def _parsed(service: ModelService, body: bytes, parse: Callable[[bytes, ServeConfig], Any]) -> Any:
    """The request; in a thread, because a hostile body costs time that the event loop does not have."""
    request = await asyncio.to_thread(parse, body, service.limits)
    if request.model is not None:
        protocol.check_model(request.model, service.names)
    return request


async def _answer(service: ModelService, body: bytes, parse: Parse) -> Response:
    start = time.monotonic()
    model = ""  # until it is known to be one of ours: a metric's labels are not for clients to choose
    timeout = service.limits.request_timeout_seconds
    with ExitStack() as held:
        try:
            # Every model's replicas refuse for themselves what is too much for them; this bounds what waits in here.
            if service.metrics.in_progress >= service.limits.max_queue * service.limits.replicas * len(service.names):
                raise ApiError(429, "too many requests are waiting already; try again later", retry_after=1)
            held.enter_context(service.metrics.one_in_progress())
            request = await _parsed(service, body, parse)
            model = request.model
            if request.stream:
                chunks = service.stream(request)
                # It is in progress until its last event: whoever sends the events lets go.
                return await events.response(chunks, service.metrics, model, timeout, held)
            answer = await _whole(service, request)
        except ApiError as error:
            service.metrics.record("kit19_requests", model=model, status=str(error.status))
            raise
        except asyncio.CancelledError:
            service.metrics.record("kit19_disconnects", model=model)
            raise
    service.metrics.record("kit19_requests", model=model, status="200")
    service.metrics.record("kit19_request_seconds", time.monotonic() - start, model=model)
    return JSONResponse(answer)


async def _whole(service: ModelService, request: CompletionRequest | ChatRequest) -> Json:
    timeout = service.limits.request_timeout_seconds
    try:
        async with asyncio.timeout(timeout):
            return await service.complete(request)
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


async def _fault(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours in any other route: Starlette logs it with its traceback, and nothing of it is shown."""
    told = events.fault()
    return JSONResponse(told.body(), status_code=told.status)
