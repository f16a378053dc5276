"""Keys, request ids, paths as clients write them, and bodies that do not come: the middleware before every route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.serve import app, limits
from kit19_ray.serve.keys import ADMIN_ENVIRONMENT, ApiKeys
from tests.serve.test_app import BODY, LIMITS, FakeService, error, send

KEY = "alices-long-enough-key"


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    (tmp_path / "keys").write_text(f"alice {KEY}\n")
    made = FakeService(lambda: {"id": "cmpl-1"})
    made.keys = ApiKeys(str(tmp_path / "keys"))
    return made


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "an API key is needed"),
        ({"Authorization": "Bearer not-that-one-at-all"}, "this API key is not known"),
        ({"Authorization": f"Basic {KEY}"}, "this API key is not known"),
        ({"Authorization": "Bearer "}, "an API key is needed"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/completions"), ("GET", "/v1/models"), ("POST", "/tokenize")]
)
def test_without_a_key_nothing_is_answered(
    service: FakeService, method: str, path: str, headers: dict[str, str], message: str
) -> None:
    response = send(service, method, path, json=BODY, headers=headers)
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert message in error(response)["message"] and error(response)["code"] == "invalid_api_key"
    assert not service.requests and KEY not in response.text


def test_a_key_opens_and_is_logged_by_name_only(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        response = send(service, "POST", "/v1/completions", json=BODY, headers={"Authorization": f"Bearer {KEY}"})
    assert response.status_code == 200
    (line,) = caplog.messages
    assert line.startswith(f"{response.headers['x-request-id']} POST /v1/completions 200") and line.endswith("alice")
    assert KEY not in line and BODY["prompt"] not in line


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/openapi.json"])
def test_probes_scrapes_and_the_page_need_no_key(service: FakeService, path: str) -> None:
    assert send(service, "GET", path).status_code == 200


def test_admin_is_closed_until_it_has_keys_of_its_own(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"Authorization": f"Bearer {KEY}"}
    closed = send(service, "GET", "/admin/models", headers=mine)
    assert closed.status_code == 403 and error(closed)["type"] == "permission_error"
    monkeypatch.setenv(ADMIN_ENVIRONMENT, "root the-admins-own-long-key")
    service.admin_keys = ApiKeys(None, ADMIN_ENVIRONMENT)
    assert send(service, "GET", "/admin/models", headers=mine).status_code == 401
    opened = send(service, "GET", "/admin/models", headers={"Authorization": "Bearer the-admins-own-long-key"})
    assert [entry["id"] for entry in opened.json()["data"]] == ["kit19", "a/tuned"]


def test_admin_takes_what_a_model_is_and_refuses_the_rest(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from kit19_ray.errors import UserError
    from kit19_ray.lm import pretrained

    def resolve(name: str) -> str:
        if name.startswith("no"):
            raise UserError(f"{name!r}: there is no such folder")
        return name

    monkeypatch.setattr(pretrained, "resolve", resolve)
    monkeypatch.setattr(pretrained, "resolve_adapter", lambda name: resolve(f"no adapter: {name}"))
    monkeypatch.setenv(ADMIN_ENVIRONMENT, "root the-admins-own-long-key")
    service.admin_keys = ApiKeys(None, ADMIN_ENVIRONMENT)
    mine = {"Authorization": "Bearer the-admins-own-long-key"}

    def ask(method: str, path: str, **body: Any) -> httpx.Response:
        return send(service, method, f"/admin/models{path}", headers=mine, **({"json": body} if body else {}))

    assert ask("POST", "", name="base", root="s3://b/m").status_code == 201
    assert ask("PUT", "/kit19", root="s3://b/n").json() == {"id": "kit19", "state": "ready"}
    assert ask("DELETE", "/a/tuned").json()["state"] == "unloaded"
    expected = [("load", "base", "s3://b/m", ""), ("swap", "kit19", "s3://b/n"), ("unload", "a/tuned")]
    assert service.registry.asked == expected
    for response, said in (
        (ask("POST", "", name="a b", root="m"), "letters, digits"),
        (ask("POST", "", name="x", rot="m"), "unknown field (did you mean 'root'?)"),
        (ask("POST", "", name="x", root="no/such"), "root: 'no/such': there is no such folder"),
        (ask("PUT", "/a/tuned", root="m"), "root: 'no adapter: m'"),
    ):
        assert response.status_code == 400 and said in error(response)["message"], response.text
    assert ask("PUT", "/nobody", root="m").status_code == 404
    assert service.registry.asked == expected


def test_a_request_keeps_its_id_where_it_is_one() -> None:
    given = send(FakeService(), "GET", "/healthz", headers={"X-Request-Id": "trace-1.a"})
    assert given.headers["x-request-id"] == "trace-1.a"
    made = send(FakeService(), "GET", "/healthz", headers={"X-Request-Id": "not one\tof ours"})
    assert len(made.headers["x-request-id"]) == 32


def test_a_head_is_a_get_without_its_body_and_a_last_slash_does_not_matter() -> None:
    head = send(FakeService(), "HEAD", "/v1/models")
    assert (head.status_code, head.content) == (200, b"") and int(head.headers["content-length"]) > 50
    assert send(FakeService(), "GET", "/v1/models/").json()["object"] == "list"
    service = FakeService(lambda: {"id": "cmpl-1"})
    assert send(service, "POST", "/v1/completions/", json=BODY).json() == {"id": "cmpl-1"}


def test_other_pages_may_ask_only_when_they_are_listed() -> None:
    asked = {"Origin": "https://chat.example.org", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in send(FakeService(), "OPTIONS", "/v1/completions", headers=asked).headers
    service = FakeService()
    service.limits = LIMITS.model_copy(update={"cors_origins": ("https://chat.example.org",)})
    listed = send(service, "OPTIONS", "/v1/completions", headers=asked)
    assert listed.headers["access-control-allow-origin"] == "https://chat.example.org"
    other = send(service, "GET", "/v1/models", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


async def slow() -> AsyncIterator[bytes]:
    yield b'{"model":'
    await asyncio.sleep(30)


def test_a_body_that_does_not_come_is_a_408_and_holds_nobody_up() -> None:
    service = FakeService(lambda: {"id": "cmpl-1"})
    service.limits = LIMITS.model_copy(update={"body_timeout_seconds": 0.3})

    async def go() -> tuple[list[httpx.Response], httpx.Response]:
        transport = httpx.ASGITransport(app.build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            halves = [asyncio.create_task(client.post("/v1/completions", content=slow())) for _ in range(20)]
            await asyncio.sleep(0.05)
            whole = await client.post("/v1/completions", json=BODY)
            assert not any(task.done() for task in halves)
            return await asyncio.gather(*halves), whole

    halves, whole = asyncio.run(go())
    assert whole.status_code == 200, "max_queue is 2, and twenty halves are on their way"
    assert {half.status_code for half in halves} == {408}
    assert "within 0.3 seconds" in error(halves[0])["message"]


def test_too_many_halves_are_told_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UPLOADS", 3)
    service = FakeService(lambda: {"id": "cmpl-1"})
    service.limits = LIMITS.model_copy(update={"body_timeout_seconds": 0.3})

    async def go() -> list[Any]:
        transport = httpx.ASGITransport(app.build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(client.post("/v1/completions", content=slow()) for _ in range(5)))

    answers = asyncio.run(go())
    assert sorted(answer.status_code for answer in answers) == [408, 408, 408, 429, 429]
    assert {answer.headers.get("retry-after") for answer in answers} == {None, "1"}
