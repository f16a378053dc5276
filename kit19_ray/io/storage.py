"""One door to `file://` and `s3://`: read, write whole objects atomically, list, copy folders.

A local write goes to a temporary name and is renamed; an S3 object appears whole or not at all. `kit19_ray.io.s3` has
the connection and the credentials.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from kit19_ray.errors import StorageError, nearest
from kit19_ray.io import s3

SCHEMES = ("file", "s3")
_COPY_CHUNK = 8 << 20  # bytes


@dataclass(frozen=True)
class FileInfo:
    """A file below a prefix: `path` relative to it, `size` in bytes."""

    path: str
    size: int


def normalise(uri: str | os.PathLike[str]) -> str:
    """`uri` without a trailing slash; a plain path becomes an absolute file:// URI.

    Raises:
        StorageError: the scheme is neither file nor s3, or an s3 URI names no bucket.
    """
    text = os.fspath(uri)
    if "://" not in text:
        return "file://" + os.path.normpath(Path(text).expanduser().absolute())
    parts = urlsplit(text)
    if parts.scheme not in SCHEMES:
        raise StorageError(
            f"{text}: scheme {parts.scheme!r} is not one of {', '.join(SCHEMES)}{nearest(parts.scheme, SCHEMES)}"
        )
    if parts.scheme == "s3" and not parts.netloc:
        raise StorageError(f"{text}: an S3 URI is s3://bucket/prefix")
    if parts.scheme == "file" and parts.netloc:
        raise StorageError(f"{text}: a file URI has three slashes, file:///{parts.netloc}{parts.path}")
    return text.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """`uri` and `parts` with one slash between each."""
    return "/".join([normalise(uri), *(p.strip("/") for p in parts if p)])


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow file system of `uri` and the path in it."""
    parts = urlsplit(normalise(uri))
    if parts.scheme == "file":
        return fs.LocalFileSystem(), unquote(parts.path)
    return s3.filesystem(), parts.netloc + parts.path


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turns what the file system says into one message that names the URI and the endpoint."""
    try:
        yield
    except FileNotFoundError:
        raise StorageError(f"{uri} does not exist") from None
    except (OSError, pa.ArrowException) as error:
        where = f" at {s3.endpoint()}" if uri.startswith("s3://") and s3.endpoint() else ""
        said = str(error).splitlines()[0]
        raise StorageError(
            f"{uri}{where}: {said}",
            hint="check AWS_ENDPOINT_URL, the bucket's name and the credentials" if uri.startswith("s3://") else "",
        ) from error


def exists(uri: str) -> bool:
    """Whether `uri` is a file or a folder with something in it."""
    filesystem_, path = filesystem(uri)
    with _told(uri):
        return bool(filesystem_.get_file_info(path).type != fs.FileType.NotFound)


def is_dir(uri: str) -> bool:
    """Whether `uri` is a folder."""
    filesystem_, path = filesystem(uri)
    with _told(uri):
        return bool(filesystem_.get_file_info(path).type == fs.FileType.Directory)


def list_files(uri: str) -> list[FileInfo]:
    """Every file below `uri`, sorted by path; empty when there is no such folder."""
    filesystem_, path = filesystem(uri)
    with _told(uri):
        found = filesystem_.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
    prefix = path.rstrip("/") + "/"
    return sorted(
        (FileInfo(f.path.removeprefix(prefix), f.size) for f in found if f.type == fs.FileType.File),
        key=lambda f: f.path,
    )


def list_dirs(uri: str) -> list[str]:
    """Names of the folders directly below `uri`, sorted; empty when there is no such folder."""
    filesystem_, path = filesystem(uri)
    with _told(uri):
        found = filesystem_.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=False))
    return sorted(f.base_name for f in found if f.type == fs.FileType.Directory)


def open_input(uri: str) -> pa.NativeFile:
    """A seekable binary file."""
    filesystem_, path = filesystem(uri)
    with _told(uri):
        return filesystem_.open_input_file(path)


def read_bytes(uri: str) -> bytes:
    """The whole file."""

    def read() -> bytes:
        filesystem_, path = filesystem(uri)
        with filesystem_.open_input_file(path) as file:
            return bytes(file.readall())

    with _told(uri):
        return _reading(read)


def _unread(error: BaseException) -> bool:
    # Arrow reads into a buffer of the range's size: a SlowDown's text that is longer than a small file breaks the
    # read before the SDK can see that it should ask again.
    return isinstance(error, OSError) and "Failed to flush response stream" in str(error)


def _reading(read: Callable[[], bytes]) -> bytes:
    return Retrying(
        retry=retry_if_exception(_unread),
        stop=stop_after_attempt(s3.attempts()),
        wait=wait_random_exponential(multiplier=0.5, max=8),
        reraise=True,
    )(read)


def read_text(uri: str) -> str:
    """The whole file as UTF-8."""
    return read_bytes(uri).decode()


def write_bytes(uri: str, data: bytes) -> None:
    """Writes the whole file, atomically."""
    with open_output(uri) as file, _told(uri):
        file.write(data)


def write_text(uri: str, text: str) -> None:
    """Writes the whole file as UTF-8, atomically."""
    write_bytes(uri, text.encode())


@contextmanager
def open_output(uri: str) -> Iterator[pa.NativeFile]:
    """A binary file to write; it appears under its name only when the block ends without an error."""
    filesystem_, path = filesystem(uri)
    if isinstance(filesystem_, fs.LocalFileSystem):
        target = Path(path)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
        with _told(uri):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with filesystem_.open_output_stream(str(partial)) as file:
                    yield file
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
        return
    # An S3 stream that is left by an error still completes the upload when closed: buffer on disk instead.
    with _told(uri), tempfile.TemporaryFile() as buffer, pa.PythonFile(buffer, mode="w") as file:
        yield file
        file.flush()
        buffer.seek(0)
        s3.upload(buffer, path)


def write_stream(uri: str, source: IO[bytes] | RawIOBase) -> None:
    """Writes what is read from `source`, atomically and without a copy on this machine's disk.

    Raises:
        StorageError: it could not; `source` has been read to some point.
    """
    filesystem_, path = filesystem(uri)
    if isinstance(filesystem_, fs.LocalFileSystem):
        with open_output(uri) as file:
            shutil.copyfileobj(source, file, _COPY_CHUNK)
        return
    with _told(uri):
        s3.upload(source, path)


def local_path(uri: str) -> Path | None:
    """Where a file:// URI is on this machine; None for another."""
    filesystem_, path = filesystem(uri)
    return Path(path) if isinstance(filesystem_, fs.LocalFileSystem) else None


def move_in(local: Path, uri: str) -> None:
    """Moves a finished file of this machine to `uri`, atomically; between file systems its bytes are copied."""
    target = local_path(uri)
    if target is not None:
        with _told(uri):
            target.parent.mkdir(parents=True, exist_ok=True)
            if local.stat().st_dev == target.parent.stat().st_dev:
                with local.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(local, target)
                return
    with open_output(uri) as out, local.open("rb") as source:
        shutil.copyfileobj(source, out, _COPY_CHUNK)
    local.unlink()


def upload_dir(local: Path, uri: str) -> None:
    """Copies every file below `local` to the prefix `uri`."""
    for file in sorted(p for p in local.rglob("*") if p.is_file()):
        with open_output(join(uri, file.relative_to(local).as_posix())) as out, file.open("rb") as source:
            shutil.copyfileobj(source, out, _COPY_CHUNK)


def download_dir(uri: str, local: Path) -> None:
    """Copies every file below the prefix `uri` into the folder `local`."""
    for info in list_files(uri):
        target = local / info.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_input(join(uri, info.path)) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, _COPY_CHUNK)


def cache_dir() -> Path:
    """Where this node keeps copies of remote folders: KIT19_CACHE, or a folder of the user's cache."""
    base = os.environ.get("KIT19_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kit19"
    )
    return Path(base)


def local_dir(uri: str) -> Path:
    """The folder `uri` on this node: itself when local, else a copy kept by the listing's names, sizes and times.

    Raises:
        StorageError: there is nothing below `uri`.
    """
    filesystem_, path = filesystem(uri)
    if isinstance(filesystem_, fs.LocalFileSystem):
        if not Path(path).is_dir():
            raise StorageError(f"{uri} is not a folder")
        return Path(path)
    with _told(uri):
        found = filesystem_.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
    files = sorted((f.path, f.size, f.mtime_ns or 0) for f in found if f.type == fs.FileType.File)
    if not files:
        raise StorageError(f"{uri} is empty or does not exist")
    target = cache_dir() / hashlib.sha256(repr((s3.endpoint(), files)).encode()).hexdigest()[:24]
    if not target.is_dir():
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.partial")
        download_dir(uri, partial)
        try:
            partial.rename(target)  # whoever comes first wins; the copies are equal
        except OSError:
            shutil.rmtree(partial)
    return target


def delete(uri: str) -> None:
    """Removes a file, or a folder with all below it; nothing happens when there is none."""
    filesystem_, path = filesystem(uri)
    with _told(uri):
        kind = filesystem_.get_file_info(path).type
        if kind == fs.FileType.Directory:
            filesystem_.delete_dir(path)
        elif kind == fs.FileType.File:
            filesystem_.delete_file(path)
