"""One URL from a server that misbehaves, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest

from kit19_ray.errors import FetchError
from kit19_ray.fetch.download import Patience, WrongContent, client, download
from kit19_ray.fetch.partial import Partial
from kit19_ray.fetch.plan import Published

from .conftest import QUICK, Handler, Origin, payload

BODY = payload(300_000)


def fetched(
    origin: Origin,
    where: Path,
    known: bool = True,
    patience: Patience = QUICK,
    body: bytes = BODY,
    keep: bool = False,
) -> bytes:
    """The bytes that `download` gives for /f, published as `body`; then nothing stays in `where`, unless `keep`."""
    origin.files.setdefault("/f", body)
    digest = hashlib.sha256(body).hexdigest()
    what = Published(origin.url("/f"), len(body) if known else None, digest if known else None)
    seen: list[int] = []

    async def one() -> bytes:
        async with client(patience) as http, Partial(where, what) as held:
            await download(http, what, held, patience, seen.append)
            data = held.path.read_bytes()
            if not keep:
                held.discard()
            return data

    data = asyncio.run(one())
    assert not seen or seen[-1] == len(data)
    return data


def cut(upto: int) -> object:
    return lambda handler, body: handler.give(body, upto)


def status(code: int, **headers: str) -> object:
    return lambda handler, body: handler.fail(code, **headers)


def test_a_dropped_connection_is_resumed_where_it_broke(origin: Origin, tmp_path: Path) -> None:
    origin.faults["/f"] = [cut(100_000), cut(200_000)]
    assert fetched(origin, tmp_path) == BODY
    first, second, third = origin.seen
    assert first.range is None
    for later, least in ((second, 1), (third, 100_000)):
        assert later.range is not None and int(later.range[6:-1]) >= least
        assert later.if_range == f'"{hashlib.md5(BODY).hexdigest()}"'


def test_a_body_shorter_than_its_content_length(origin: Origin, tmp_path: Path) -> None:
    def half(handler: Handler, body: bytes) -> None:
        handler.head(200, len(body), ETag=handler.etag(body))
        handler.wfile.write(body[:150_000])
        handler.close_connection = True

    origin.faults["/f"] = [half]
    assert fetched(origin, tmp_path) == BODY
    assert origin.seen[1].range == "bytes=150000-"


def test_a_content_length_that_is_too_small_is_wrong_content(origin: Origin, tmp_path: Path) -> None:
    def short(handler: Handler, body: bytes) -> None:
        handler.head(200, 1000)
        handler.wfile.write(body[:1000])

    origin.faults["/f"] = [short]
    assert fetched(origin, tmp_path) == BODY
    assert [s.range for s in origin.seen] == [None, None]
    origin.faults["/f"] = [short, short]
    with pytest.raises(WrongContent, match="1,000 bytes, the published file has 300,000; SHA-256 is ") as caught:
        fetched(origin, tmp_path)
    assert hashlib.sha256(BODY).hexdigest() in str(caught.value)
    assert hashlib.sha256(BODY[:1000]).hexdigest() in str(caught.value)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_an_error_that_may_pass_is_asked_again(origin: Origin, tmp_path: Path, code: int) -> None:
    origin.faults["/f"] = [status(code), status(code)]
    assert fetched(origin, tmp_path) == BODY
    assert len(origin.seen) == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_a_refusal_is_final(origin: Origin, tmp_path: Path, code: int) -> None:
    origin.faults["/f"] = [status(code)]
    with pytest.raises(FetchError, match=rf"/f: HTTP {code} "):
        fetched(origin, tmp_path)
    assert len(origin.seen) == 1


def test_retry_after_is_waited_for_and_not_for_ever(origin: Origin, tmp_path: Path) -> None:
    origin.faults["/f"] = [status(503, Retry_After="1")]
    assert fetched(origin, tmp_path) == BODY
    assert origin.seen[1].time - origin.seen[0].time >= 1
    origin.faults["/f"] = [status(429, Retry_After="3600")]
    with pytest.raises(FetchError, match="HTTP 429 Too Many Requests; the server asks to come again in 3,600 seconds"):
        fetched(origin, tmp_path)
    origin.faults["/f"] = [status(503, Retry_After=formatdate(time.time() + 900, usegmt=True))]
    with pytest.raises(FetchError, match="come again in (899|900) seconds"):
        fetched(origin, tmp_path)


@pytest.mark.parametrize("value", ["soon", "-3", ""])
def test_a_retry_after_that_says_nothing_is_passed_over(origin: Origin, tmp_path: Path, value: str) -> None:
    origin.faults["/f"] = [status(503, Retry_After=value)]
    assert fetched(origin, tmp_path) == BODY


def test_a_server_that_keeps_failing_is_given_up_and_what_came_is_kept(origin: Origin, tmp_path: Path) -> None:
    origin.faults["/f"] = [cut(120_000), *[status(500)] * QUICK.attempts]
    with pytest.raises(FetchError, match=r"/f: HTTP 500 Internal Server Error \(5 attempts\)"):
        fetched(origin, tmp_path)
    assert len(origin.seen) == QUICK.attempts
    kept = next(tmp_path.glob("*.partial")).stat().st_size
    assert 0 < kept <= 120_000
    origin.faults.clear()
    assert fetched(origin, tmp_path) == BODY
    assert origin.seen[-1].range == f"bytes={kept}-"


def test_attempts_that_bring_much_do_not_count(origin: Origin, tmp_path: Path) -> None:
    body = payload(6 << 20)
    origin.faults["/f"] = [cut(n << 19) for n in range(1, 11)]
    assert fetched(origin, tmp_path, body=body) == body
    assert len(origin.seen) == 11 > QUICK.attempts


def test_wrong_bytes_get_one_clean_retry(origin: Origin, tmp_path: Path) -> None:
    wrong = payload(len(BODY), seed=1)
    origin.faults["/f"] = [lambda handler, body: handler.give(wrong)]
    assert fetched(origin, tmp_path) == BODY
    assert [s.range for s in origin.seen] == [None, None]
    origin.files["/f"] = wrong
    with pytest.raises(WrongContent) as caught:
        fetched(origin, tmp_path)
    assert len(origin.seen) == 4
    for body in (wrong, BODY):
        assert hashlib.sha256(body).hexdigest() in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_longer_file_is_not_read_to_its_end(origin: Origin, tmp_path: Path) -> None:
    origin.files["/f"] = BODY + payload(30 << 20)
    with pytest.raises(WrongContent, match="longer than the published file, which has 300,000 bytes and SHA-256"):
        fetched(origin, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_range_support_it_starts_over(origin: Origin, tmp_path: Path) -> None:
    origin.ranges = False
    origin.faults["/f"] = [cut(100_000), cut(200_000)]
    assert fetched(origin, tmp_path) == BODY
    assert origin.seen[2].range is not None


def test_another_version_on_the_server_is_not_glued_on(origin: Origin, tmp_path: Path) -> None:
    other = payload(len(BODY), seed=2)

    def replaced(handler: Handler, body: bytes) -> None:
        origin.files["/f"] = other
        handler.give(body, 100_000)

    origin.faults["/f"] = [replaced]
    assert fetched(origin, tmp_path, known=False) == other
    assert origin.seen[1].if_range == f'"{hashlib.md5(BODY).hexdigest()}"'


def test_a_206_of_another_version_or_part_is_refused(origin: Origin, tmp_path: Path) -> None:
    def ignores_if_range(handler: Handler, body: bytes) -> None:
        span = f"bytes 100000-{len(body) - 1}/{len(body)}"
        handler.head(206, len(body) - 100_000, ETag='"other"', Content_Range=span)
        handler.wfile.write(payload(len(body), seed=3)[100_000:])

    def another_part(handler: Handler, body: bytes) -> None:
        handler.head(206, 10, ETag=handler.etag(body), Content_Range=f"bytes 0-9/{len(body)}")
        handler.wfile.write(body[:10])

    for answer in (ignores_if_range, another_part):
        origin.faults["/f"] = [cut(100_000), answer]
        origin.seen.clear()
        assert fetched(origin, tmp_path, known=False) == BODY
        assert [s.range is None for s in origin.seen] == [True, False, True]


def test_without_a_validator_only_a_known_hash_allows_resuming(origin: Origin, tmp_path: Path) -> None:
    origin.etags = False
    origin.faults["/f"] = [cut(100_000)]
    assert fetched(origin, tmp_path) == BODY
    assert origin.seen[1].range is not None
    origin.seen.clear()
    origin.faults["/f"] = [cut(100_000)]
    assert fetched(origin, tmp_path, known=False) == BODY
    assert origin.seen[1].range is None


def test_bytes_of_two_versions_are_found_by_the_hash(origin: Origin, tmp_path: Path) -> None:
    origin.etags = False
    other = payload(len(BODY), seed=4)
    origin.files["/f"] = other
    origin.faults["/f"] = [cut(100_000), lambda handler, body: (origin.files.update({"/f": BODY}), handler.give(BODY))]
    assert fetched(origin, tmp_path) == BODY
    assert [s.range is None for s in origin.seen] == [True, False, True]


def test_stopped_after_the_last_byte_it_only_checks(origin: Origin, tmp_path: Path) -> None:
    for known in (True, False):
        fetched(origin, tmp_path, known=known, keep=True)
        origin.seen.clear()
        assert fetched(origin, tmp_path, known=known) == BODY
        assert [s.range for s in origin.seen] == ([] if known else [f"bytes={len(BODY)}-"])


def test_kept_bytes_that_are_too_many_are_dropped(origin: Origin, tmp_path: Path) -> None:
    fetched(origin, tmp_path, keep=True)
    with next(tmp_path.glob("*.partial")).open("ab") as kept:
        kept.write(b"more")
    assert fetched(origin, tmp_path) == BODY


def test_a_length_that_nobody_knows_is_refused(origin: Origin, tmp_path: Path) -> None:
    def endless(handler: Handler, body: bytes) -> None:
        handler.head(200, None, Connection="close")
        handler.wfile.write(body)
        handler.close_connection = True

    origin.faults["/f"] = [endless]
    assert fetched(origin, tmp_path) == BODY
    origin.faults["/f"] = [endless]
    with pytest.raises(FetchError, match="neither the server nor catalog.yaml says how long the file is"):
        fetched(origin, tmp_path, known=False)


def test_chunked_transfer(origin: Origin, tmp_path: Path) -> None:
    def chunked(whole: bool) -> object:
        def answer(handler: Handler, body: bytes) -> None:
            handler.head(200, None, Transfer_Encoding="chunked")
            for at in range(0, len(body), 100_000):
                part = body[at : at + 100_000]
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                if not whole:
                    handler.close_connection = True
                    return
            handler.wfile.write(b"0\r\n\r\n")

        return answer

    origin.faults["/f"] = [chunked(False), chunked(True)]
    assert fetched(origin, tmp_path, known=False) == BODY


def test_a_body_that_is_encoded_after_all_is_refused(origin: Origin, tmp_path: Path) -> None:
    def zipped(handler: Handler, body: bytes) -> None:
        assert handler.headers["Accept-Encoding"] == "identity"
        handler.head(200, 3, Content_Encoding="gzip")
        handler.wfile.write(b"abc")

    origin.faults["/f"] = [zipped]
    with pytest.raises(FetchError, match="content-encoding gzip although the plain file was asked for"):
        fetched(origin, tmp_path)


def test_silence_is_a_fault_and_slowness_is_not(origin: Origin, tmp_path: Path) -> None:
    def silent(handler: Handler, body: bytes) -> None:
        handler.head(200, len(body), ETag=handler.etag(body))
        handler.wfile.write(body[:100_000])
        time.sleep(1.2)
        handler.close_connection = True

    def slow(handler: Handler, body: bytes) -> None:
        handler.head(200, len(body), ETag=handler.etag(body))
        for at in range(0, len(body), 30_000):
            handler.wfile.write(body[at : at + 30_000])
            time.sleep(0.1)

    patience = Patience(attempts=2, first_seconds=0.01, silence_seconds=0.5)
    origin.faults["/f"] = [silent]
    started = time.monotonic()
    assert fetched(origin, tmp_path, patience=patience) == BODY
    assert time.monotonic() - started < 1.1 and origin.seen[1].range == "bytes=100000-"
    origin.faults["/f"] = [slow]
    origin.seen.clear()
    assert fetched(origin, tmp_path, patience=patience) == BODY
    assert len(origin.seen) == 1


def test_redirects_are_followed_and_a_loop_is_final(origin: Origin, tmp_path: Path) -> None:
    origin.files["/there"] = BODY
    origin.faults["/f"] = [status(302, Location="/there")]
    assert fetched(origin, tmp_path) == BODY
    assert [s.path for s in origin.seen] == ["/f", "/there"]
    origin.faults["/f"] = [status(302, Location="/f")] * 40
    with pytest.raises(FetchError, match=re.compile("exceeded maximum allowed redirects", re.IGNORECASE)):
        fetched(origin, tmp_path)
    origin.faults["/f"] = [status(302, Location="ftp://127.0.0.1/f")]
    with pytest.raises(FetchError, match="unsupported protocol 'ftp://'"):
        fetched(origin, tmp_path)


def refused(answer: Callable[[httpx.Request], httpx.Response], where: Path) -> None:
    """Downloads https://example.org/f from a made-up server."""
    what = Published("https://example.org/f", len(BODY), None)

    async def one() -> None:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, follow_redirects=True) as http, Partial(where, what) as held:
            await download(http, what, held, QUICK, lambda _: None)

    asyncio.run(one())


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            return httpx.Response(302, headers={"Location": "http://example.org/f"})
        return httpx.Response(200, content=BODY)

    with pytest.raises(FetchError, match="redirected from https to http, which anyone can alter"):
        refused(answer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_that_cannot_be_trusted_is_final(tmp_path: Path) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")

    with pytest.raises(FetchError, match="https://example.org/f: .*self-signed certificate"):
        refused(answer, tmp_path)
    assert len(asked) == 1


def test_a_host_that_is_not_there_is_named_without_secrets(tmp_path: Path) -> None:
    what = Published("http://user:secret@127.0.0.1:9/f?signature=secret", 1, None)

    async def one() -> None:
        async with client(QUICK) as http, Partial(tmp_path, what) as held:
            await download(http, what, held, QUICK, lambda _: None)

    with pytest.raises(FetchError, match=r"http://127.0.0.1:9/f: .*\(5 attempts\)") as caught:
        asyncio.run(one())
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Partial, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Partial, "append", full)
    with pytest.raises(FetchError, match=r"\.partial: No space left on device\nKIT19_CACHE"):
        fetched(origin, tmp_path)
