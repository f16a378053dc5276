"""One URL's bytes over HTTP: resumed by range, retried with backoff, checked by size and SHA-256."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from kit19_ray import __version__
from kit19_ray.errors import FetchError
from kit19_ray.fetch.partial import Partial
from kit19_ray.fetch.plan import Published
from kit19_ray.utils.proxies import usable_proxies

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_GAIN = 1 << 20  # bytes that several attempts must bring together for it to be worth going on


@dataclass(frozen=True)
class Patience:
    """How long a server that fails is asked again.

    Attributes:
        attempts: requests in a row that may fail without bringing much.
        first_seconds: wait after the first failure; it doubles with each.
        longest_seconds: the longest such wait.
        asked_seconds: the longest wait that a server may ask for by Retry-After.
        silence_seconds: a server that sends nothing for so long has failed.
    """

    attempts: int = 6
    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    asked_seconds: float = 600.0
    silence_seconds: float = 60.0


class PassingFault(Exception):
    """A failure that may pass. `retry_after`: seconds the server asks to wait."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WrongContent(FetchError):
    """Whole, and not what was published."""


@asynccontextmanager
async def client(patience: Patience) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client for all downloads of a run; proxies are those of the environment.

    Raises:
        UserError: the environment names a proxy that cannot be used.
    """
    timeout = httpx.Timeout(patience.silence_seconds, pool=None)
    headers = {"User-Agent": f"kit19-ray/{__version__}", "Accept-Encoding": "identity"}  # ranges count plain bytes
    with usable_proxies():
        made = httpx.AsyncClient(follow_redirects=True, timeout=timeout, headers=headers)
    async with made as opened:
        yield opened


async def download(
    http: httpx.AsyncClient,
    published: Published,
    partial: Partial,
    patience: Patience,
    progress: Callable[[int], None],
) -> None:
    """Fills `partial` with the published bytes, whole and checked.

    Args:
        progress: told the number of bytes so far.

    Raises:
        FetchError: the server refuses, or keeps failing.
        WrongContent: twice the bytes were others than those published; none of them is kept.
    """
    for last in (False, True):
        await _receive(http, published, partial, patience, progress, fresh=last)
        try:
            await asyncio.to_thread(_check, published, partial)
        except WrongContent:
            partial.restart(None)
            if last:
                raise
        else:
            break


def _too_long(published: Published, partial: Partial) -> bool:
    return published.bytes is not None and partial.size > published.bytes


def _check(published: Published, partial: Partial) -> None:
    size, actual = partial.size, partial.sha256()
    expected = published.sha256 or "not known"
    if _too_long(published, partial):  # its end was not waited for, so it has no hash
        what = f"longer than the published file, which has {published.bytes:,} bytes and SHA-256 {expected}"
    elif published.bytes not in (None, size):
        what = (
            f"{size:,} bytes, the published file has {published.bytes:,}; "
            f"SHA-256 is {actual}, the published file's is {expected}"
        )
    elif published.sha256 not in (None, actual):
        what = f"SHA-256 is {actual}, the published file's is {expected}"
    else:
        return
    raise WrongContent(
        f"{published.shown}: {what}", hint="the file has changed at its origin, or something in between alters it"
    )


async def _receive(
    http: httpx.AsyncClient,
    published: Published,
    partial: Partial,
    patience: Patience,
    progress: Callable[[int], None],
    fresh: bool,
) -> None:
    first = patience.first_seconds
    backoff = wait_exponential(multiplier=first, max=patience.longest_seconds) + wait_random(0, first)

    def wait(state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        return max(backoff(state), fault.retry_after if isinstance(fault, PassingFault) else 0.0)

    while True:
        before = partial.size
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(PassingFault),
                stop=stop_after_attempt(patience.attempts),
                wait=wait,
                sleep=asyncio.sleep,
                reraise=True,
            ):
                with attempt:
                    await _attempt(http, published, partial, patience, progress, fresh)
            return
        except PassingFault as fault:
            if partial.size - before < _GAIN:
                raise FetchError(
                    f"{published.shown}: {fault} ({patience.attempts} attempts)",
                    hint="the same command goes on with what was received",
                ) from fault


async def _attempt(
    http: httpx.AsyncClient,
    published: Published,
    partial: Partial,
    patience: Patience,
    progress: Callable[[int], None],
    fresh: bool,
) -> None:
    # Without a validator the server may have another version by now, which only the hash can tell.
    if partial.size and not (partial.validator or published.sha256):
        partial.restart(None)
    start = partial.size
    if start and start == published.bytes:
        return
    headers = {"Cache-Control": "no-cache"} if fresh else {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if partial.validator:
            headers["If-Range"] = partial.validator
    try:
        async with http.stream("GET", published.url, headers=headers) as response:
            if start and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                if response.headers.get("content-range") == f"bytes */{start}":
                    return  # an earlier run was stopped between the last byte and the check
                partial.restart(None)
                raise PassingFault(f"the server has nothing after byte {start:,}")
            _check_status(response, published, patience)
            total = _begin(response, partial, start)
            if total is None and published.bytes is None and "transfer-encoding" not in response.headers:
                raise FetchError(
                    f"{published.shown}: neither the server nor catalog.yaml says how long the file is, "
                    "so whether it is whole cannot be told"
                )
            await _append(response, published, partial, progress)
            total = published.bytes if total is None else total
            if total is not None and partial.size < total and not _too_long(published, partial):
                raise PassingFault(f"the server stopped after {partial.size:,} of {total:,} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _told(error, published) from error


def _check_status(response: httpx.Response, published: Published, patience: Patience) -> None:
    code = response.status_code
    said = f"HTTP {code} {response.reason_phrase}".rstrip()
    if code in _PASSING:
        asked = _retry_after(response.headers.get("retry-after", ""))
        if asked > patience.asked_seconds:
            raise FetchError(f"{published.shown}: {said}; the server asks to come again in {asked:,.0f} seconds")
        raise PassingFault(said, asked)
    if code not in (200, 206):
        raise FetchError(f"{published.shown}: {said}")
    if published.url.startswith("https:") and response.url.scheme != "https":
        raise FetchError(f"{published.shown}: redirected from https to {response.url.scheme}, which anyone can alter")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FetchError(
            f"{published.shown}: content-encoding {response.headers['content-encoding']} although the plain file was "
            "asked for"
        )


def _begin(response: httpx.Response, partial: Partial, start: int) -> int | None:
    """Places `partial` where the body goes on. Returns the whole file's size when the server says it."""
    if response.status_code == 200:
        partial.restart(_validator(response))
        length = response.headers.get("content-length", "")
        return int(length) if length.isdigit() else None
    found = _RANGE.fullmatch(response.headers.get("content-range", ""))
    version = _validator(response)
    other = partial.validator and version and version != partial.validator
    if not start or not found or int(found[1]) != start or other:
        partial.restart(None)
        raise PassingFault("the server answers with another part of the file than was asked for")
    return int(found[2]) if found[2] != "*" else None


def _validator(response: httpx.Response) -> str | None:
    etag = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):  # a weak one does not vouch for bytes
        return str(etag)
    modified = response.headers.get("last-modified")
    return str(modified) if modified and not etag else None


async def _append(
    response: httpx.Response, published: Published, partial: Partial, progress: Callable[[int], None]
) -> None:
    async for chunk in response.aiter_raw():
        try:
            partial.append(chunk)
        except OSError as error:
            raise FetchError(
                f"{partial.path}: {error.strerror}", hint="KIT19_CACHE names another folder for unfinished downloads"
            ) from error
        progress(partial.size)
        if _too_long(published, partial):
            break  # the check says what is wrong; more of it would not help


def _retry_after(value: str) -> float:
    if value.strip().isdigit():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def _told(error: Exception, published: Published) -> Exception:
    said = str(error) or type(error).__name__
    final = (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL)
    if isinstance(error, final) or "CERTIFICATE_VERIFY_FAILED" in said:
        return FetchError(f"{published.shown}: {said}")
    return PassingFault(said)
