"""/admin/models: which models are served, changed while they are. Behind keys of its own (`serve.admin_keys_file`).

GET             what is served, and what is being loaded
POST            load a model, or an adapter of one that is served: {"name": ..., "root": ..., "base": ...}
PUT /{name}     put another one under the name: {"root": ...}
DELETE /{name}  take it away

An answer comes when the change is made; a client that does not wait for it ends nothing.
"""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator

from kit19_ray.errors import UserError
from kit19_ray.lm import pretrained
from kit19_ray.serve import protocol, request_body
from kit19_ray.serve.api_error import ApiError
from kit19_ray.utils.json_types import Json

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")


class SwapRequest(BaseModel):
    """The body of PUT /admin/models/{name}."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    root: str = Field(min_length=1, max_length=2048)
    """Train prefix, hub id, local path or s3:// prefix; of an adapter its train prefix or folder."""


class LoadRequest(SwapRequest):
    """The body of POST /admin/models."""

    name: str
    """What requests will call it."""
    base: str | None = None
    """Of an adapter: the model that it was trained on."""

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("name has letters, digits and ._/:- only, begins with a letter or digit, 128 at most")
        return value


class Registry(Protocol):
    """What the routes need: see `model_registry.ModelRegistry`."""

    def listed(self) -> list[Json]: ...
    async def load(self, name: str, uri: str, base: str | None) -> Json: ...
    async def swap(self, name: str, uri: str) -> Json: ...
    async def unload(self, name: str) -> Json: ...


class ManagedModels(Protocol):
    """Who has the models."""

    @property
    def registry(self) -> Registry: ...


def routes(service: ManagedModels) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/admin/models")

    @router.get("")
    async def listed() -> Json:
        return {"object": "list", "data": service.registry.listed()}

    @router.post("")
    async def load(request: Request) -> JSONResponse:
        asked = request_body.read(await request.body(), LoadRequest)
        await _check(asked.root, asked.base is not None)
        return JSONResponse(await service.registry.load(asked.name, asked.root, asked.base), status_code=201)

    @router.put("/{name:path}")
    async def swap(name: str, request: Request) -> Json:
        asked = request_body.read(await request.body(), SwapRequest)
        entries = {entry["id"]: entry for entry in service.registry.listed()}
        protocol.check_model(name, list(entries))
        await _check(asked.root, entries[name]["parent"] is not None)
        return await service.registry.swap(name, asked.root)

    @router.delete("/{name:path}")
    async def unload(name: str) -> Json:
        return await service.registry.unload(name)

    return router


async def _check(root: str, is_adapter: bool) -> None:
    """Refuses what is no model, before anything is started for it.

    Raises:
        ApiError: 400.
    """
    try:
        await asyncio.to_thread(pretrained.resolve_adapter if is_adapter else pretrained.resolve, root)
    except UserError as error:
        raise ApiError(400, f"root: {error}", "root") from None
