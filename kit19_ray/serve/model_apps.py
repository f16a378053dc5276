"""Models as Ray Serve applications of their own: one can be started, swapped and ended while the others serve.

Each has replicas of `ModelServer` and no route: the gateway, an application too, is what HTTP reaches.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from typing import Any

from kit19_ray.config.serve import ServeConfig
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.model_registry import config_of
from kit19_ray.serve.served_models import ModelSpec
from kit19_ray.utils.json_types import Json

log = logging.getLogger("ray.serve")

PREFIX = "kit19-model-"
"""Of the names of these applications."""
QUIET = {"log_level": "WARNING", "enable_access_log": False}
_POLL_SECONDS = 0.2
_STORE = b"kit19:models"


class ServeApps:
    """Runs models on the Ray Serve of this cluster.

    Args:
        autoscaling: Ray Serve's autoscaling_config; None keeps `section.replicas` copies.
    """

    def __init__(self, section: ServeConfig, autoscaling: Json | None = None) -> None:
        self._section, self._autoscaling = section, autoscaling

    def name(self, spec: ModelSpec) -> str:
        """As ModelApps."""
        known = json.dumps([spec.name, spec.uri, spec.generation, config_of(self._section), self._autoscaling])
        return f"{PREFIX}{slug(spec.name)}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"

    def target(self, spec: ModelSpec) -> Any:
        """What `serve.run_many` takes.

        GPUs are what the section says, never what the cluster has at this moment: KubeRay has the application built as
        soon as the head pod is ready, before the GPU nodes have joined, and Ray Serve waits for them.
        """
        from ray import serve

        from kit19_ray.serve.model_server import ModelServer

        section = self._section
        deployment: Any = serve.deployment(
            ModelServer,
            name=f"Model-{slug(spec.name)}",
            **({"autoscaling_config": self._autoscaling} if self._autoscaling else {"num_replicas": section.replicas}),
            # The queue is kept and limited by the replica itself: Serve's own answer to a full one is not OpenAI's.
            max_ongoing_requests=2 * section.max_queue,
            max_surge_percent=section.max_surge_percent,
            # A model that was swapped is ended when its requests are over (`ModelRegistry`); at SIGTERM the gateway
            # goes first, with the requests that have not ended by then.
            graceful_shutdown_timeout_s=section.drain_seconds,
            ray_actor_options={
                "num_cpus": section.cpus_per_replica,
                "num_gpus": section.gpus_per_replica if section.use_gpu else 0,
            },
        )
        threads = max(1, int(section.cpus_per_replica))
        bound = deployment.bind(spec.uri, spec.name, section, threads)
        return serve.api.RunTarget(bound, self.name(spec), None, QUIET)

    async def start(self, spec: ModelSpec) -> Any:
        """As ModelApps."""
        from ray import serve

        name = self.name(spec)
        if (await _state(name))[0] in ("NOT_STARTED", "DEPLOY_FAILED", "DELETING"):
            await self._ended(name)
            await asyncio.to_thread(serve.run_many, [self.target(spec)], wait_for_applications_running=False)
        limit = time.monotonic() + self._section.start_timeout_seconds
        while (state := await _state(name))[0] != "RUNNING":
            if state[0] == "DEPLOY_FAILED" or time.monotonic() > limit:
                await self.end(name)
                if state[0] == "DEPLOY_FAILED":
                    said = f"the model could not be loaded: {reason(state[1])}"
                    raise ApiError(422, said, "root", "model_not_loaded")
                raise ApiError(
                    503,
                    f"no replica was ready within {self._section.start_timeout_seconds:g} seconds: {reason(state[1])}",
                    code="model_not_loaded",
                    retry_after=30,
                )
            await asyncio.sleep(_POLL_SECONDS)
        handle = await asyncio.to_thread(serve.get_app_handle, name)
        if not await handle.ready.remote():
            await self.end(name)
            raise ApiError(422, "the model was loaded and does not decode", "root", "model_not_loaded")
        return handle

    async def end(self, application: str) -> None:
        """As ModelApps."""
        from ray import serve

        log.info("ending %s", application)
        await asyncio.to_thread(serve.delete, application, _blocking=False)

    async def running(self) -> list[str]:
        """As ModelApps."""
        return [name for name, state in (await _status()).items() if state[0] != "DELETING"]

    async def adapt(self, handle: Any, adapter: ModelSpec) -> None:
        """As ModelApps."""
        for answer in await handle.broadcast("adapt", adapter).results_async():
            if isinstance(answer, ApiError):
                raise answer

    async def forget(self, handle: Any, adapter: ModelSpec) -> None:
        """As ModelApps."""
        await handle.broadcast("forget", adapter).results_async()

    async def _ended(self, name: str) -> None:
        """Waits until what has this name is gone: it failed, or is on its way out."""
        from ray import serve

        if (await _state(name))[0] != "NOT_STARTED":
            await asyncio.to_thread(serve.delete, name)


class ClusterStore:
    """The names of one config in the cluster's own store: they outlive the gateway, not the cluster."""

    def __init__(self, config: Any) -> None:
        self._config = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    def get(self) -> list[Json] | None:
        """As Store."""
        from ray.experimental.internal_kv import _internal_kv_get

        found = _internal_kv_get(_STORE)
        kept = json.loads(found) if found else {}
        return kept.get("models") if kept.get("config") == self._config else None

    def put(self, specs: list[Json]) -> None:
        """As Store."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(_STORE, json.dumps({"config": self._config, "models": specs}).encode(), overwrite=True)


def slug(name: str) -> str:
    """A part of a name that Ray Serve takes, for any model name."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def failures() -> list[str]:
    """Why models of this cluster could not be loaded; to be asked outside of an event loop."""
    return [reason(said) for state, said in _statuses().values() if state == "DEPLOY_FAILED"]


def reason(message: str) -> str:
    """The end of a traceback: what was raised, without where."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*:", line)]
    return (errors or lines or ["no reason was given"])[-1][:500]


async def _state(name: str) -> tuple[str, str]:
    return (await _status()).get(name, ("NOT_STARTED", ""))


async def _status() -> dict[str, tuple[str, str]]:
    return await asyncio.to_thread(_statuses)


def _statuses() -> dict[str, tuple[str, str]]:
    """State and message of each model's application."""
    from ray import serve

    return {
        name: (one.status, "; ".join(d.message for d in one.deployments.values() if d.message) or one.message)
        for name, one in serve.status().applications.items()
        if name.startswith(PREFIX)
    }
