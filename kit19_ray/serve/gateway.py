"""The HTTP side of the server as a Ray Serve deployment: it has no model, so a model's death is never its own.

A request whose replica dies before it has begun to answer is sent to another one; what has begun to stream cannot be
taken back, and ends with an error event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import ray
from fastapi import FastAPI
from ray.exceptions import RayActorError, RayError, TaskCancelledError
from ray.serve.exceptions import RayServeException

from kit19_ray.config.schema import ServeConfig
from kit19_ray.serve import app, metrics
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.keys import ADMIN_ENVIRONMENT, ApiKeys
from kit19_ray.serve.metrics import RayRecorder, ServeMetrics
from kit19_ray.serve.model_apps import ClusterStore, ServeApps
from kit19_ray.serve.model_registry import ModelRegistry, config_of, wanted
from kit19_ray.serve.protocol import CompletionRequest
from kit19_ray.serve.tokenizing import DetokenizeRequest, TokenizeRequest
from kit19_ray.utils.json_types import Json

log = logging.getLogger("ray.serve")

_ATTEMPTS = 3
_LEAVE_SECONDS = 5.0  # more than the gateway before this one may take to end
_READY_SECONDS = 30.0  # that a replica may take for its first token; a health probe asks again


class Gateway:
    """What `kit19_ray.serve.stage` deploys before the models. It is there when they answer.

    Args:
        limits: the config's serve section.
        model: the default model.
        autoscaling: Ray Serve's autoscaling_config of each model.

    Raises:
        ApiError: a model could not be loaded.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, limits: ServeConfig, model: str, autoscaling: Json | None = None
    ) -> None:
        self.limits = limits
        self.metrics = ServeMetrics(RayRecorder())
        self.keys = ApiKeys(limits.api_keys_file) if limits.auth != "none" else None
        if self.keys is not None and not self.keys and limits.auth is None:
            self.keys = None  # a server of this machine's own; `stage` and `deployment` have seen to that
        self.admin_keys = ApiKeys(limits.admin_keys_file, ADMIN_ENVIRONMENT, "serve.admin_keys_file")
        specs = wanted(limits, model)
        store = ClusterStore([[asdict(spec) for spec in specs], config_of(limits), autoscaling])
        self.registry = ModelRegistry(ServeApps(limits, autoscaling), store, limits.request_timeout_seconds)
        await self.registry.start(specs, leave_seconds=limits.drain_seconds + _LEAVE_SECONDS)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return app.build(self)

    @property
    def names(self) -> list[str]:
        """Models that can be asked."""
        return self.registry.names

    async def models(self) -> list[Json]:
        """The entries of /v1/models."""
        names = self.names
        described = await asyncio.gather(*(self._call(name, "describe") for name in names))
        return [
            {"id": name, "object": "model", "owned_by": "kit19", **what}
            for name, what in zip(names, described, strict=True)
        ]

    async def ready(self) -> bool:
        """Whether every model decodes."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                answers = await asyncio.gather(*(self._call(name, "ready") for name in self.names))
        except (ApiError, TimeoutError):
            return False
        return all(answers)

    async def complete(self, request: CompletionRequest | ChatRequest) -> Json:
        """The response body; raises ApiError."""
        body: Json = await self._call(request.model, "complete", request)
        return body

    async def prompt(self, request: ChatRequest) -> Json:
        """The prompt that messages become; raises ApiError."""
        body: Json = await self._call(request.model, "prompt", request)
        return body

    async def tokenize(self, request: TokenizeRequest) -> Json:
        """Tokens of a text; raises ApiError."""
        body: Json = await self._call(request.model or self.names[0], "tokenize", request)
        return body

    async def detokenize(self, request: DetokenizeRequest) -> Json:
        """Text of tokens; raises ApiError."""
        body: Json = await self._call(request.model or self.names[0], "detokenize", request)
        return body

    async def stream(self, request: CompletionRequest | ChatRequest) -> AsyncIterator[Json]:
        """The response's chunks; raises ApiError before the first for a prompt that does not fit the model."""
        begun = False
        for attempt in range(1, _ATTEMPTS + 1):
            with self.registry.using(request.model) as served:
                parts = served.handle.options(stream=True).stream.remote(request, served.adapter)
                try:
                    async for part in parts:
                        if isinstance(part, ApiError):
                            raise part
                        begun = True
                        for chunk in part:
                            yield chunk
                    return
                except (RayError, RayServeException) as error:
                    if begun or not self._may_retry(error, request.model, attempt):
                        raise _refusal(error) from None
                finally:
                    parts.cancel()

    async def scrape(self) -> str:
        """The metrics of every replica of every node, from Ray's agents."""
        import httpx

        nodes = [node for node in _nodes() if node["Alive"] and node.get("MetricsExportPort")]
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            urls = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes]
            answers = await asyncio.gather(*(client.get(url) for url in urls), return_exceptions=True)
        for url, answer in zip(urls, answers):
            if isinstance(answer, BaseException):
                log.warning("no metrics from %s: %s", url, answer)
        return metrics.merge([answer.text for answer in answers if isinstance(answer, httpx.Response)])

    async def _call(self, name: str, method: str, *args: Any) -> Any:
        """What a replica's method gives; a replica that died is not asked again, another one is."""
        for attempt in range(1, _ATTEMPTS + 1):
            with self.registry.using(name) as served:
                call: Any = getattr(served.handle, method)
                response: Any = call.remote(*args, adapter=served.adapter)
                try:
                    answer = await response
                except asyncio.CancelledError:
                    response.cancel()  # the client left: the replica need not go on
                    raise
                except (RayError, RayServeException) as error:
                    if not self._may_retry(error, name, attempt):
                        raise _refusal(error) from None
                    continue
            if isinstance(answer, ApiError):
                raise answer
            return answer
        raise AssertionError("the last attempt returns or raises")

    def _may_retry(self, error: Exception, name: str, attempt: int) -> bool:
        if not isinstance(error, RayActorError) or attempt == _ATTEMPTS:
            return False
        log.warning("a replica of %s died; its request goes to another one", name)
        self.metrics.record("kit19_failovers", model=name)
        return True


def _refusal(error: Exception) -> Exception:
    """What a client is told when no replica answers: the same request may succeed a little later.

    An error of the model's own code stays what it is: app.py makes a 500 of it and logs it.
    """
    if isinstance(error, (RayActorError, RayServeException, TaskCancelledError)):
        return ApiError(503, "the model's replica went away; try again", code="replica_unavailable", retry_after=2)
    return error


def _nodes() -> list[Json]:
    nodes: list[Json] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray does not type it
    return nodes
