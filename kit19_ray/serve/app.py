"""The HTTP face: routes, limits and errors. What answers is behind `Service`, so it is tested without Ray."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from kit19_ray import __version__
from kit19_ray.config import ServeConfig
from kit19_ray.serve import metrics, protocol
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

    async def complete(self, request: CompletionRequest) -> Json:
        """The response body; raises ApiError."""


def build(service: Service) -> FastAPI:
    """The ASGI application in front of `service`. Every error it answers with is in OpenAI's shape."""
    # No page of interactive documentation: FastAPI's loads scripts from elsewhere. /openapi.json stays.
    app = FastAPI(title="kit19", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=service.limits.max_body_bytes)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)

    @app.get("/healthz")
    async def healthz() -> Json:
        return {"status": "ok"}

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

    body = {"required": True, "content": {"application/json": {"schema": CompletionRequest.model_json_schema()}}}

    @app.post("/v1/completions", openapi_extra={"requestBody": body})
    async def completions(request: Request) -> JSONResponse:
        start = time.monotonic()
        try:
            answer = await _answer(service, await request.body())
        except ApiError as error:
            service.metrics.answered(error.status)
            raise
        service.metrics.answered(200)
        service.metrics.seconds.observe(time.monotonic() - start)
        return JSONResponse(answer)

    return app


async def _answer(service: Service, body: bytes) -> Json:
    limits = service.limits
    if service.metrics.in_progress >= limits.max_queue:
        raise ApiError(429, f"{limits.max_queue} requests are waiting already; try again later")
    request = protocol.parse(body, limits)
    timeout = limits.request_timeout_seconds
    with service.metrics.one_in_progress():
        try:
            return await asyncio.wait_for(service.complete(request), timeout)
        except asyncio.TimeoutError:
            raise ApiError(504, f"no answer within {timeout:g} seconds", code="timeout") from None
        except ApiError:
            raise
        except Exception:  # the one place where a fault of ours becomes a response
            log.exception("a completion failed")
            raise ApiError(500, "the server failed on this request; its log says why") from None


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), status_code=error.status)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the router itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    message: Any = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return JSONResponse(
        ApiError(error.status_code, message).body(), status_code=error.status_code, headers=error.headers
    )
