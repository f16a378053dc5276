"""Routes, limits and errors over HTTP messages, with a service that needs neither Ray nor a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from kit19_ray.config.schema import ServeConfig
from kit19_ray.serve import app
from kit19_ray.serve.keys import ADMIN_ENVIRONMENT, ApiKeys
from kit19_ray.serve.metrics import MemoryRecorder, ServeMetrics
from kit19_ray.serve.protocol import CompletionRequest
from kit19_ray.utils.json_types import Json

LIMITS = ServeConfig(max_body_bytes=2048, max_queue=2, request_timeout_seconds=0.2)
BODY = {"model": "kit19", "prompt": "안녕"}


class FakeRegistry:
    """Notes what /admin asks of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def listed(self) -> list[Json]:
        return [{"id": "kit19", "parent": None}, {"id": "a/tuned", "parent": "kit19"}]

    async def load(self, name: str, uri: str, base: str | None) -> Json:
        self.asked.append(("load", name, uri, base or ""))
        return {"id": name, "state": "ready"}

    async def swap(self, name: str, uri: str) -> Json:
        self.asked.append(("swap", name, uri))
        return {"id": name, "state": "ready"}

    async def unload(self, name: str) -> Json:
        self.asked.append(("unload", name))
        return {"id": name, "state": "unloaded"}


class FakeService:
    def __init__(self, answer: Callable[[], Any] = dict) -> None:
        self.limits = LIMITS
        self.recorder = MemoryRecorder()
        self.metrics = ServeMetrics(self.recorder)
        self.keys: ApiKeys | None = None
        self.admin_keys = ApiKeys(None, ADMIN_ENVIRONMENT)
        self.registry = FakeRegistry()
        self.names = ["kit19"]
        self.answer = answer
        self.requests: list[CompletionRequest] = []

        self.model_ready = True

    async def models(self) -> list[Json]:
        return [{"id": "kit19", "object": "model", "created": 7, "owned_by": "kit19", "max_model_len": 64, "root": "m"}]

    async def scrape(self) -> str:
        return "# TYPE ray_kit19_requests_total counter\n"

    async def ready(self) -> bool:
        return self.model_ready

    async def complete(self, request: CompletionRequest) -> Json:
        self.requests.append(request)
        result = self.answer()
        if asyncio.iscoroutine(result):
            result = await result
        assert isinstance(result, dict)
        return result


def send(
    service: FakeService, method: str, path: str, raise_app_exceptions: bool = True, **options: Any
) -> httpx.Response:
    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app.build(service), raise_app_exceptions)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)

    return asyncio.run(go())


def error(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


def test_health_and_models() -> None:
    assert send(FakeService(), "GET", "/healthz").json() == {"status": "ok"}
    listed = send(FakeService(), "GET", "/v1/models").json()
    assert [entry["id"] for entry in listed["data"]] == ["kit19"] and listed["data"][0]["max_model_len"] == 64
    assert send(FakeService(), "GET", "/v1/models/kit19").json() == listed["data"][0]
    assert error(send(FakeService(), "GET", "/v1/models/other"))["code"] == "model_not_found"


def test_ready_is_more_than_alive() -> None:
    service = FakeService()
    assert send(service, "GET", "/readyz").json() == {"status": "ready"}
    service.model_ready = False
    refused = send(service, "GET", "/readyz")
    assert (refused.status_code, refused.headers["retry-after"], error(refused)["code"]) == (503, "1", "not_ready")
    assert send(service, "GET", "/healthz").status_code == 200


def test_a_request_reaches_the_service_and_is_counted() -> None:
    service = FakeService(lambda: {"id": "cmpl-1"})
    response = send(service, "POST", "/v1/completions", json=BODY)
    assert response.status_code == 200 and response.json() == {"id": "cmpl-1"}
    assert service.requests[0].prompt == "안녕"
    assert service.recorder.values["kit19_requests", "kit19", "200"] == 1


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)])
def test_the_routers_own_errors_have_openais_shape(method: str, path: str, status: int) -> None:
    response = send(FakeService(), method, path)
    assert response.status_code == status and error(response)["type"] == "invalid_request_error"


def test_a_bad_request_never_reaches_the_service() -> None:
    service = FakeService()
    response = send(service, "POST", "/v1/completions", content=b"{")
    assert response.status_code == 400 and "not valid JSON" in error(response)["message"]
    assert not service.requests and service.recorder.values["kit19_requests", "", "400"] == 1


def test_a_large_body_is_refused_before_it_is_parsed() -> None:
    service = FakeService()
    response = send(service, "POST", "/v1/completions", json={**BODY, "prompt": "a" * 3000})
    assert response.status_code == 413 and "more than 2048 bytes" in error(response)["message"]


def test_a_large_body_without_a_length_is_refused_too() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"a" * 1000

    response = send(FakeService(), "POST", "/v1/completions", content=chunks())
    assert response.status_code == 413


def test_a_chunked_body_within_the_limit_arrives_whole() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in json.dumps(BODY).encode():
            yield bytes([byte])

    service = FakeService()
    assert send(service, "POST", "/v1/completions", content=chunks()).status_code == 200
    assert service.requests[0].prompt == "안녕"


def test_no_answer_in_time_is_a_504() -> None:
    service = FakeService(lambda: asyncio.sleep(5, {}))
    response = send(service, "POST", "/v1/completions", json=BODY)
    assert response.status_code == 504 and error(response)["type"] == "server_error"
    assert service.metrics.in_progress == 0


def test_a_fault_of_ours_is_a_500_that_shows_nothing_of_it() -> None:
    def fail() -> None:
        raise RuntimeError("secret path")

    response = send(FakeService(fail), "POST", "/v1/completions", json=BODY)
    assert response.status_code == 500
    assert "secret" not in response.text and "Traceback" not in response.text
    assert error(response)["type"] == "server_error"


def test_a_fault_in_any_other_route_has_the_shape_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: FakeService) -> bool:
        raise RuntimeError("secret path")

    monkeypatch.setattr(FakeService, "ready", fail)
    response = send(FakeService(), "GET", "/readyz", raise_app_exceptions=False)
    assert response.status_code == 500 and error(response)["type"] == "server_error" and "secret" not in response.text


def test_a_full_queue_is_a_429() -> None:
    service = FakeService(lambda: asyncio.sleep(0.05, {}))

    async def go() -> list[int]:
        transport = httpx.ASGITransport(app.build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            sent = [client.post("/v1/completions", json=BODY) for _ in range(3)]
            return sorted(response.status_code for response in await asyncio.gather(*sent))

    assert asyncio.run(go()) == [200, 200, 429]
