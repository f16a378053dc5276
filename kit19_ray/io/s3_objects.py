"""What is done with S3 objects; a path is bucket/key. All errors are OSErrors: absent, forbidden, replaced, others."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from kit19_ray.io import s3
from kit19_ray.io.s3_calls import Broken, address, as_os_errors, payer, renewing, write_options
from kit19_ray.utils.json_types import Json

T = TypeVar("T")
_THREADS = 16


@dataclass(frozen=True)
class S3Object:
    """An object as a listing or its head has it; `sha256` only where its head was asked and we wrote it."""

    key: str
    size: int
    etag: str
    modified: str
    sha256: str | None = None


def head(path: str) -> S3Object | None:
    """The object's size and hash; None when it is not there."""
    if "/" not in path:
        return None
    try:
        found = renewing(lambda client: client.head_object(**address(path), **payer()))
    except FileNotFoundError:
        return None
    sha256 = found.get("Metadata", {}).get("sha256")
    return S3Object(path, found["ContentLength"], found.get("ETag", ""), str(found.get("LastModified")), sha256)


def has_bucket(bucket: str) -> bool:
    """Whether the bucket is there."""
    try:
        renewing(lambda client: client.head_bucket(Bucket=bucket))
    except FileNotFoundError:
        return False
    return True


def _pages(path: str, **options: Any) -> list[Json]:
    bucket, _, key = path.partition("/")
    prefix = f"{key}/" if key else ""

    def pages(client: Any) -> list[Json]:
        found = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **options, **payer())
        return list(found)

    try:
        return renewing(pages)
    except OSError as error:
        if str(error).startswith("NoSuchBucket"):
            return []
        raise


def below(path: str) -> list[S3Object]:
    """Every object below the folder, folder markers aside; keys begin with the bucket."""
    bucket = path.partition("/")[0]
    return [
        S3Object(f"{bucket}/{o['Key']}", o["Size"], o.get("ETag", ""), str(o.get("LastModified")))
        for page in _pages(path)
        for o in page.get("Contents", ())
        if not o["Key"].endswith("/")
    ]


def folders(path: str) -> list[str]:
    """Names of the folders directly below the folder."""
    found = [p["Prefix"] for page in _pages(path, Delimiter="/") for p in page.get("CommonPrefixes", ())]
    return [prefix.rstrip("/").rpartition("/")[2] for prefix in found]


def is_folder(path: str) -> bool:
    """Whether anything is below the path."""
    pages = _pages(path, PaginationConfig={"MaxItems": 1})
    return any(page.get("Contents") for page in pages)


class Input(io.RawIOBase):
    """An object's bytes. A body that breaks, or whose token lapses, is asked for again from where it stopped.

    Raises:
        Replaced: another object took its place meanwhile.
    """

    def __init__(self, path: str) -> None:
        found = head(path)
        if found is None:
            raise FileNotFoundError(path)
        self._path, self._size, self._etag = path, found.size, found.etag
        self._at = self._streamed = 0
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        wanted = max(0, self._size - self._at)
        wanted = wanted if size is None or size < 0 else min(size, wanted)
        parts: list[bytes] = []
        while wanted:
            part = _patient(lambda: self._read(wanted))  # noqa: B023 - called at once
            parts.append(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        try:
            if self._body is None or self._streamed != self._at:
                self._open(size)
            with as_os_errors():
                data = bytes(self._body.read(size))
            if not data:
                raise Broken(f"the body ended at byte {self._at:,} of {self._size:,}")
        except OSError:
            self._drop()
            raise
        self._at += len(data)
        self._streamed = self._at
        return data

    def _open(self, size: int) -> None:
        # What is read on from where the last read ended is a stream; what is jumped to is a piece.
        end = "" if self._streamed == self._at else str(self._at + size - 1)
        self._drop()
        options = {"Range": f"bytes={self._at}-{end}", **payer()} | ({"IfMatch": self._etag} if self._etag else {})
        self._body = renewing(lambda client: client.get_object(**address(self._path), **options))["Body"]
        self._streamed = self._at

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        self._drop()
        super().close()


def _patient(read: Callable[[], T]) -> T:
    return Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, Broken)),
        stop=stop_after_attempt(s3.attempts()),
        wait=wait_random_exponential(multiplier=0.5, max=8),
        reraise=True,
    )(read)


def read(path: str) -> bytes:
    """The whole object."""

    def whole() -> bytes:
        with as_os_errors():
            return bytes(renewing(lambda client: client.get_object(**address(path), **payer()))["Body"].read())

    return _patient(whole)


def upload(buffer: BinaryIO, path: str, sha256: str | None = None) -> None:
    """Uploads to `path`; a part is sent again when it must be, and no half is left behind.

    Args:
        sha256: of the bytes, kept with the object.
    """
    start, options = buffer.tell(), write_options() | ({"Metadata": {"sha256": sha256}} if sha256 else {})

    def send(client: Any) -> None:
        buffer.seek(start)
        # boto3 closes what it is given; the caller's file stays open.
        client.upload_fileobj(_Unclosed(buffer), **address(path), ExtraArgs=options)

    renewing(send)


class _Unclosed(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def put(path: str, data: bytes, only_if: str | None = None) -> str:
    """Writes a small object and returns its ETag.

    Args:
        only_if: "" writes only where there is none; an ETag only over that version. None writes in any case.

    Raises:
        Replaced: it is there, or another one.
    """
    condition = {} if only_if is None else {"IfMatch": only_if} if only_if else {"IfNoneMatch": "*"}
    made = renewing(lambda client: client.put_object(**address(path), Body=data, **condition, **write_options()))
    return str(made.get("ETag", ""))


def delete(path: str) -> None:
    """Deletes the object, and every object and marker below it.

    One request each: DeleteObjects wants checksums on which servers disagree.
    """
    bucket = path.partition("/")[0]
    keys = [path] + [f"{bucket}/{o['Key']}" for page in _pages(path) for o in page.get("Contents", ())]

    def one(key: str, context: Context) -> None:  # threads do not inherit `s3.override_credentials`
        context.run(renewing, lambda client: client.delete_object(**address(key), **payer()))

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(one, keys, [copy_context() for _ in keys]))
