"""Which models answer to which names, and how that changes without a request lost.

A swap: the new model is started beside the old one, which goes on answering; when the new one has decoded a token the
name is pointed at it, and the old one ends once the requests it has are over. What cannot be started changes nothing.
Imports neither Ray nor torch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kit19_ray.config.serve import ServeConfig
from kit19_ray.errors import quote
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.protocol import check_model
from kit19_ray.serve.served_models import ModelApps, ModelSpec, Served, Store
from kit19_ray.utils.json_types import Json

log = logging.getLogger("ray.serve")


def wanted(section: ServeConfig, model: str) -> list[ModelSpec]:
    """What the config asks for, the default model first."""
    models = {section.served_name: model, **section.models}
    adapters = [ModelSpec(name, one.path, one.base or section.served_name) for name, one in section.adapters.items()]
    return [ModelSpec(name, uri) for name, uri in models.items()] + adapters


@dataclass
class _Change:
    """A change that goes on, as GET /admin/models shows it."""

    spec: ModelSpec
    what: str = "loading"


@dataclass
class ModelRegistry:
    """The models by name. One event loop may use it.

    Attributes:
        drain_seconds: longest time that a request of a model that was replaced may still take.
    """

    apps: ModelApps
    store: Store
    drain_seconds: float
    _served: dict[str, Served] = field(default_factory=dict)
    _changes: dict[str, _Change] = field(default_factory=dict)
    _drains: set[asyncio.Task[None]] = field(default_factory=set)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self, specs: list[ModelSpec], leave_seconds: float) -> None:
        """Starts what is wanted, taking over what runs already, and ends what another config left behind.

        Args:
            leave_seconds: what is not wanted may still have the requests of a gateway that is on its way out.

        Raises:
            ApiError: one could not be loaded.
        """
        kept = self.store.get()
        if kept is not None:  # an earlier gateway of this config died: what /admin changed since holds on
            specs = [ModelSpec(**one) for one in kept]
        models = [spec for spec in specs if spec.base is None]
        handles = await asyncio.gather(*(self.apps.start(spec) for spec in models))
        for spec, handle in zip(models, handles, strict=True):
            self._served[spec.name] = Served(spec, handle, self.apps.name(spec))
        for spec in specs:
            if spec.base is not None:
                base = self._served[spec.base]
                await self.apps.adapt(base.handle, spec)
                self._served[spec.name] = Served(spec, base.handle, base.application)
        self._spawn(self._end_others(leave_seconds))

    @property
    def names(self) -> list[str]:
        """Models that can be asked, the default first."""
        return list(self._served)

    @contextmanager
    def using(self, name: str) -> Iterator[Served]:
        """The model for one request; it does not end before the request does.

        Raises:
            ApiError: 404: there is no such model.
        """
        check_model(name, self.names)
        served = self._served[name]
        served.in_flight += 1
        try:
            yield served
        finally:
            served.in_flight -= 1

    def listed(self) -> list[Json]:
        """What /admin/models says."""
        states = dict.fromkeys(self._served, "ready")
        specs = {name: served.spec for name, served in self._served.items()}
        for name, change in self._changes.items():
            states[name] = "swapping" if name in self._served else change.what
            specs.setdefault(name, change.spec)
        return [_entry(spec, states[name]) for name, spec in specs.items()]

    async def load(self, name: str, uri: str, base: str | None) -> Json:
        """Adds a model, or an adapter of the model `base`, and returns when it answers.

        Raises:
            ApiError: the name is taken, there is no such base, or it could not be loaded.
        """
        if name in self._served or name in self._changes:
            raise ApiError(409, f"there is a model {quote(name)} already; PUT /admin/models/{name} swaps it", "name")
        return await self._change(ModelSpec(name, uri, base))

    async def swap(self, name: str, uri: str) -> Json:
        """Puts another model, or adapter, under a name, and returns when it answers. The old one serves until then.

        Raises:
            ApiError: there is no such model, it is being changed, or the new one could not be loaded.
        """
        check_model(name, self.names)
        if name in self._changes:
            raise ApiError(409, f"{quote(name)} is being changed already; try again later", "name", retry_after=5)
        spec = self._served[name].spec
        return await self._change(replace(spec, uri=uri, generation=spec.generation + 1))

    async def unload(self, name: str) -> Json:
        """Takes a model away; its requests go on to their end.

        Raises:
            ApiError: there is no such model, it is the last one, or an adapter needs it.
        """
        check_model(name, self.names)
        async with self._one_at_a_time:
            check_model(name, self.names)
            dependent = [one for one, served in self._served.items() if served.spec.base == name]
            if dependent:
                raise ApiError(409, f"{quote(name)} is the base of {', '.join(dependent)}; unload those first", "name")
            if len(self._served) == 1:
                raise ApiError(409, f"{quote(name)} is the only model; swap it, or stop the server", "name")
            served = self._served.pop(name)
            self._keep()
            self._spawn(self._let_go(served))
        return _entry(served.spec, "unloaded")

    async def _change(self, spec: ModelSpec) -> Json:
        self._changes[spec.name] = _Change(spec)
        # A client that leaves does not end what it began: half a swap would be worse than a whole one.
        task = self._spawn(self._changed(spec))
        await asyncio.shield(task)
        return _entry(spec, "ready")

    async def _changed(self, spec: ModelSpec) -> None:
        try:
            async with self._one_at_a_time:
                if spec.base is not None:
                    await self._changed_adapter(spec)
                    return
                handle = await self.apps.start(spec)
                new = Served(spec, handle, self.apps.name(spec))
                adapters = [served.spec for served in self._served.values() if served.spec.base == spec.name]
                try:
                    for adapter in adapters:  # they go along, or the swap is off
                        await self.apps.adapt(handle, adapter)
                except ApiError:
                    await self.apps.end(new.application)
                    raise
                gone = [self._served[name] for name in (spec.name, *(a.name for a in adapters)) if name in self._served]
                self._served[spec.name] = new
                for adapter in adapters:
                    self._served[adapter.name] = Served(adapter, handle, new.application)
                self._keep()
                self._spawn(self._let_go(*gone))
        finally:
            self._changes.pop(spec.name, None)

    async def _changed_adapter(self, spec: ModelSpec) -> None:
        if spec.base not in self._served or self._served[spec.base].spec.base is not None:
            raise ApiError(
                404, f"there is no model {quote(spec.base)} to adapt; see /v1/models", "base", "model_not_found"
            )
        base, old = self._served[spec.base], self._served.get(spec.name)
        await self.apps.adapt(base.handle, spec)
        self._served[spec.name] = Served(spec, base.handle, base.application)
        self._keep()
        if old is not None:
            self._spawn(self._let_go(old))

    async def _let_go(self, *old: Served) -> None:
        """Ends models that have no name any more, when their requests are over."""
        limit = asyncio.get_running_loop().time() + self.drain_seconds
        while any(one.in_flight for one in old) and asyncio.get_running_loop().time() < limit:
            await asyncio.sleep(0.1)
        live = {served.application for served in self._served.values()}
        for one in old:
            if one.adapter is not None and one.application in live:
                await self.apps.forget(one.handle, one.adapter)
        for application in {one.application for one in old} - live:
            await self.apps.end(application)

    async def _end_others(self, leave_seconds: float) -> None:
        mine = {served.application for served in self._served.values()}
        if not set(await self.apps.running()) - mine:
            return
        await asyncio.sleep(leave_seconds)
        async with self._one_at_a_time:
            mine = {served.application for served in self._served.values()}
            for application in set(await self.apps.running()) - mine:
                await self.apps.end(application)

    def _keep(self) -> None:
        self.store.put([asdict(served.spec) for served in self._served.values()])

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._drains.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._drains.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ApiError):
            log.error("a change of models failed", exc_info=error)


def _entry(spec: ModelSpec, state: str) -> Json:
    return {"id": spec.name, "object": "model", "root": spec.uri, "parent": spec.base, "state": state} | {
        "generation": spec.generation
    }


def config_of(section: ServeConfig) -> Mapping[str, Any]:
    """What of the section changes how a model is run: the rest is the gateway's."""
    mine = {"model", "models", "adapters", "served_name", "host", "port", "cors_origins"}
    mine |= {"auth", "api_keys_file", "admin_keys_file", "body_timeout_seconds"}
    kept = section.model_dump(mode="json", exclude=mine)
    if section.engine != "transformers":  # vLLM sets memory for adapters aside when it starts
        kept["adapters"] = len(section.adapters)
    return kept
