"""Names and what answers to them, with stand-ins for what runs models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kit19_ray.config.schema import AdapterConfig, ServeConfig
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.model_registry import ModelRegistry, config_of, wanted
from kit19_ray.serve.served_models import ModelSpec
from kit19_ray.utils.json_types import Json


class FakeApps:
    """Runs nothing; a uri that says "broken" cannot be loaded."""

    def __init__(self) -> None:
        self.apps: list[str] = []
        self.adapters: set[tuple[str, str]] = set()
        self.gate: asyncio.Event | None = None

    def name(self, spec: ModelSpec) -> str:
        return f"{spec.name}={spec.uri}@{spec.generation}"

    async def start(self, spec: ModelSpec) -> str:
        if self.gate is not None:
            await self.gate.wait()
        if "broken" in spec.uri:
            raise ApiError(422, "the model could not be loaded")
        if self.name(spec) not in self.apps:
            self.apps.append(self.name(spec))
        return self.name(spec)

    async def end(self, application: str) -> None:
        self.apps.remove(application)

    async def running(self) -> list[str]:
        return list(self.apps)

    async def adapt(self, handle: str, adapter: ModelSpec) -> None:
        if "broken" in adapter.uri or "small" in handle:
            raise ApiError(422, "the adapter could not be loaded")
        self.adapters.add((handle, adapter.key))

    async def forget(self, handle: str, adapter: ModelSpec) -> None:
        self.adapters.discard((handle, adapter.key))


class FakeStore:
    def __init__(self) -> None:
        self.kept: list[Json] | None = None

    def get(self) -> list[Json] | None:
        return self.kept

    def put(self, specs: list[Json]) -> None:
        self.kept = specs


SPECS = [ModelSpec("kit19", "one"), ModelSpec("tuned", "lora", base="kit19")]


def run(
    work: Callable[[ModelRegistry, FakeApps], Awaitable[Any]],
    store: FakeStore | None = None,
    apps: FakeApps | None = None,
    specs: list[ModelSpec] = SPECS,
) -> Any:
    async def go() -> Any:
        mine = apps or FakeApps()
        registry = ModelRegistry(mine, store or FakeStore(), drain_seconds=5)
        await registry.start(specs, leave_seconds=0)
        return await asyncio.wait_for(work(registry, mine), 10)

    return asyncio.run(go())


async def settled(check: Callable[[], bool]) -> None:
    while not check():
        await asyncio.sleep(0.01)


def test_the_config_says_what_is_served() -> None:
    adapters = {"tuned": AdapterConfig(path="lora"), "t2": AdapterConfig(path="l", base="base")}
    section = ServeConfig(models={"base": "b"}, adapters=adapters)
    assert wanted(section, "m") == [
        ModelSpec("kit19", "m"),
        ModelSpec("base", "b"),
        ModelSpec("tuned", "lora", "kit19"),
        ModelSpec("t2", "l", "base"),
    ]


def test_only_what_changes_a_model_starts_it_anew() -> None:
    same = ServeConfig(port=9000, auth="none", models={"a": "b"}, served_name="x")
    assert config_of(same) == config_of(ServeConfig()) != config_of(ServeConfig(max_batch_size=2))


def test_a_swap_points_the_name_at_the_new_model_when_it_answers_and_the_old_one_ends_after_its_requests() -> None:
    async def work(registry: ModelRegistry, apps: FakeApps) -> None:
        with registry.using("kit19") as old:
            apps.gate = asyncio.Event()
            swap = asyncio.create_task(registry.swap("kit19", "two"))
            await settled(lambda: registry.listed()[0]["state"] == "swapping")
            with registry.using("kit19") as meanwhile:
                assert meanwhile is old, "the old one serves until the new one answers"
            with pytest.raises(ApiError, match="being changed already"):
                await registry.swap("kit19", "three")
            apps.gate.set()
            assert (await swap)["generation"] == 1
            with registry.using("kit19") as new:
                assert new.handle == "kit19=two@1"
            with registry.using("tuned") as tuned:
                assert tuned.handle == "kit19=two@1", "an adapter goes along with its base"
            await asyncio.sleep(0.2)
            assert old.application in apps.apps, "a request of it is not over"
        await settled(lambda: apps.apps == ["kit19=two@1"])

    run(work)


def test_the_same_place_swapped_in_again_is_another_model() -> None:
    async def work(registry: ModelRegistry, apps: FakeApps) -> None:
        await registry.swap("kit19", "one")
        await settled(lambda: apps.apps == ["kit19=one@1"])

    run(work)


@pytest.mark.parametrize("uri", ["broken", "small"])
def test_what_cannot_be_loaded_changes_nothing(uri: str) -> None:
    async def work(registry: ModelRegistry, apps: FakeApps) -> None:
        before = registry.listed()
        with pytest.raises(ApiError, match="could not be loaded"):
            await registry.swap("kit19", uri)  # `small` does not take the adapter that is in use
        with pytest.raises(ApiError, match="could not be loaded"):
            await registry.load("other", "broken", None)
        with pytest.raises(ApiError, match="could not be loaded"):
            await registry.swap("tuned", "broken")
        assert registry.listed() == before and apps.apps == ["kit19=one@0"]

    run(work)


def test_loading_and_unloading() -> None:
    async def work(registry: ModelRegistry, apps: FakeApps) -> None:
        assert await registry.load("base", "two", None) == {
            "id": "base", "object": "model", "root": "two", "parent": None, "state": "ready", "generation": 0,
        }  # fmt: skip
        await registry.load("t2", "lora2", "base")
        assert registry.names == ["kit19", "tuned", "base", "t2"]
        with pytest.raises(ApiError, match="'base' is the base of t2"):
            await registry.unload("base")
        await registry.unload("t2")
        await settled(lambda: apps.adapters == {("kit19=one@0", "tuned@0")})
        assert (await registry.unload("base"))["state"] == "unloaded"
        await settled(lambda: apps.apps == ["kit19=one@0"])
        await registry.unload("tuned")
        with pytest.raises(ApiError, match="the only model"):
            await registry.unload("kit19")
        for wrong, status in ((("kit19", "x", None), 409), (("new", "x", "nobody"), 404)):
            with pytest.raises(ApiError) as caught:
                await registry.load(*wrong)
            assert caught.value.status == status
        with pytest.raises(ApiError, match="there is no model 'bass'"):
            await registry.swap("bass", "x")

    run(work)


def test_a_client_that_leaves_ends_no_swap() -> None:
    async def work(registry: ModelRegistry, apps: FakeApps) -> None:
        apps.gate = asyncio.Event()
        swap = asyncio.create_task(registry.swap("kit19", "two"))
        await settled(lambda: registry.listed()[0]["state"] == "swapping")
        swap.cancel()
        apps.gate.set()
        await settled(lambda: registry.listed()[0]["root"] == "two")

    run(work)


def test_a_new_gateway_takes_over_what_was_changed_and_ends_what_nobody_wants() -> None:
    store, apps = FakeStore(), FakeApps()

    async def change(registry: ModelRegistry, apps: FakeApps) -> None:
        await registry.swap("kit19", "two")
        await settled(lambda: apps.apps == ["kit19=two@1"])

    run(change, store, apps)
    apps.apps.append("left=over@3")

    async def look(registry: ModelRegistry, apps: FakeApps) -> list[Json]:
        await settled(lambda: apps.apps == ["kit19=two@1"])
        return registry.listed()

    assert [entry["root"] for entry in run(look, store, apps)] == ["two", "lora"]
