"""One door to `file://` and `s3://`: read, write whole objects atomically, list, copy folders.

A local write goes to a temporary name, is brought to the disk and renamed; an S3 object appears whole or not at all.
`kit19_ray.io.uris` says what a URI is, `kit19_ray.io.s3` has the connection and the credentials.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs

from kit19_ray.errors import StorageError
from kit19_ray.io import files, s3, s3_calls, s3_objects
from kit19_ray.io.uris import SCHEMES as SCHEMES
from kit19_ray.io.uris import is_root, shown, split
from kit19_ray.io.uris import join as join
from kit19_ray.io.uris import normalise as normalise
from kit19_ray.redaction import first_line
from kit19_ray.utils.hashing import sha256_stream

_COPY_CHUNK = 8 << 20  # bytes
_SAID = 200  # characters of a store's message


@dataclass(frozen=True)
class FileInfo:
    """A file below a prefix: `path` relative to it, `size` in bytes."""

    path: str
    size: int


def filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """A pyarrow file system for who asks for one, such as Ray Train, and the path of `uri` in it."""
    scheme, path = split(uri)
    if scheme == "file":
        return fs.LocalFileSystem(), path
    with translate_errors(uri):
        return s3.filesystem(), path


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turns what the store says into one message that names the URI and the endpoint."""
    try:
        yield
    except FileNotFoundError:
        raise StorageError(f"{shown(uri)} does not exist") from None
    except (OSError, pa.ArrowException) as error:
        remote = uri.startswith("s3://")
        where = f" at {shown(str(s3.endpoint()))}" if remote and s3.endpoint() else ""
        said = first_line(error, _SAID)
        raise StorageError(f"{shown(uri)}{where}: {said}", hint=_hint(error) if remote else "") from error


def _hint(error: BaseException) -> str:
    if isinstance(error, s3_calls.Replaced):
        return "leave alone what a run reads or writes until it is over, and start it again"
    if isinstance(error, PermissionError):
        return (
            "the credentials need s3:GetObject, s3:PutObject and s3:DeleteObject below the prefix and s3:ListBucket on "
            "the bucket: without that S3 answers 403 for what is not there; a bucket that asks for encryption or for a "
            "requester who pays needs KIT19_S3_SSE or KIT19_S3_REQUEST_PAYER"
        )
    return "check AWS_ENDPOINT_URL, the bucket's name and the credentials"


def exists(uri: str) -> bool:
    """Whether `uri` is a file or a folder with something in it."""
    scheme, path = split(uri)
    with translate_errors(uri):
        if scheme == "file":
            return os.path.exists(path)
        if is_root(uri):
            return s3_objects.has_bucket(path)
        return s3_objects.head(path) is not None or s3_objects.is_folder(path)


def is_dir(uri: str) -> bool:
    """Whether `uri` is a folder."""
    scheme, path = split(uri)
    with translate_errors(uri):
        return os.path.isdir(path) if scheme == "file" else s3_objects.is_folder(path)


def size(uri: str) -> int | None:
    """Bytes of the file; None when there is none."""
    scheme, path = split(uri)
    with translate_errors(uri):
        if scheme == "file":
            return os.path.getsize(path) if os.path.isfile(path) else None
        found = s3_objects.head(path)
        return None if found is None else found.size


def list_files(uri: str) -> list[FileInfo]:
    """Every file below `uri`, sorted by path; empty when there is no such folder.

    Names that are not UTF-8 come out with replacement characters: they are listed, and cannot be opened.
    """
    scheme, path = split(uri)
    with translate_errors(uri):
        if scheme == "file":
            found = _walk(path)
        else:
            found = [FileInfo(o.key.removeprefix(path.rstrip("/") + "/"), o.size) for o in s3_objects.below(path)]
    return sorted(found, key=lambda f: f.path)


def _walk(folder: str) -> list[FileInfo]:
    found: list[FileInfo] = []
    entered: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        stat = os.stat(where)
        if (stat.st_dev, stat.st_ino) in entered:  # a link back to where we came from
            folders.clear()
            continue
        entered.add((stat.st_dev, stat.st_ino))
        for name in names:
            full = os.path.join(where, name)
            try:
                size = os.path.getsize(full)
            except FileNotFoundError:  # gone meanwhile, or a link to nothing
                continue
            below = os.path.relpath(full, folder).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            found.append(FileInfo(below, size))
    return found


def list_dirs(uri: str) -> list[str]:
    """Names of the folders directly below `uri`, sorted; empty when there is no such folder."""
    scheme, path = split(uri)
    with translate_errors(uri):
        if scheme == "s3":
            return sorted(s3_objects.folders(path))
        if not os.path.isdir(path):
            return []
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())


def open_input(uri: str) -> pa.NativeFile:
    """A seekable binary file; of S3 one that outlives lapsed credentials and broken connections."""
    scheme, path = split(uri)
    with translate_errors(uri):
        if scheme == "file":
            return fs.LocalFileSystem().open_input_file(path)
        return pa.PythonFile(_Input(path), mode="r")


class _Input(s3_objects.Input):
    """An object whose errors, whenever they come, are the storage's messages."""

    def read(self, size: int = -1) -> bytes:
        with translate_errors(f"s3://{self._path}"):
            return super().read(size)


def read_bytes(uri: str) -> bytes:
    """The whole file."""
    scheme, path = split(uri)
    with translate_errors(uri):
        return Path(path).read_bytes() if scheme == "file" else s3_objects.read(path)


def read_text(uri: str) -> str:
    """The whole file as UTF-8.

    Raises:
        StorageError: it is not there, or not UTF-8.
    """
    try:
        return read_bytes(uri).decode()
    except UnicodeDecodeError as error:
        raise StorageError(f"{shown(uri)}: byte {error.start} is not UTF-8") from None


def write_bytes(uri: str, data: bytes) -> None:
    """Writes the whole file, atomically."""
    with open_output(uri) as file, translate_errors(uri):
        file.write(data)


def write_text(uri: str, text: str) -> None:
    """Writes the whole file as UTF-8, atomically."""
    write_bytes(uri, text.encode())


@contextmanager
def open_output(uri: str) -> Iterator[pa.NativeFile]:
    """A binary file to write; it appears under its name only when the block ends without an error."""
    scheme, path = split(uri)
    if is_root(uri):
        raise StorageError(f"{shown(uri)} is no file: a path below it is needed")
    if scheme == "file":
        with translate_errors(uri), files.appearing(Path(path)) as partial:  # noqa: SIM117 - closed before it appears
            with fs.LocalFileSystem().open_output_stream(str(partial)) as file:
                yield file
        return
    # An upload that is left by an error must not be completed: buffer on disk, and hash what is sent.
    with translate_errors(uri), tempfile.TemporaryFile() as buffer, pa.PythonFile(buffer, mode="w") as file:
        yield file
        file.flush()
        buffer.seek(0)
        sha256, _ = sha256_stream(buffer)
        buffer.seek(0)
        s3_objects.upload(buffer, path, sha256)


def write_stream(uri: str, source: BinaryIO) -> None:
    """Writes what is read from `source`, atomically and without a copy on this machine's disk.

    Args:
        source: may be read again from its beginning, when a part must be sent again.
    """
    scheme, path = split(uri)
    with translate_errors(uri):
        if scheme == "file":
            with open_output(uri) as file:
                shutil.copyfileobj(source, file, _COPY_CHUNK)
        else:
            s3_objects.upload(source, path)


def local_path(uri: str) -> Path | None:
    """Where a file:// URI is on this machine; None for another."""
    scheme, path = split(uri)
    return Path(path) if scheme == "file" else None


def move_in(local: Path, uri: str) -> None:
    """Moves a finished file of this machine to `uri`, atomically; between file systems its bytes are copied."""
    target = local_path(uri)
    if target is not None:
        with translate_errors(uri):
            target.parent.mkdir(parents=True, exist_ok=True)
            if local.stat().st_dev == target.parent.stat().st_dev:
                files.sync(local)
                os.replace(local, target)
                files.sync_folder(target.parent)
                return
    copy_in(local, uri)
    local.unlink()


def copy_in(local: Path, uri: str) -> None:
    """Copies a file of this machine to `uri`, atomically."""
    with open_output(uri) as out, local.open("rb") as source:
        shutil.copyfileobj(source, out, _COPY_CHUNK)


def upload_dir(local: Path, uri: str) -> None:
    """Copies every file below `local` to the prefix `uri`."""
    for file in sorted(p for p in local.rglob("*") if p.is_file()):
        copy_in(file, join(uri, file.relative_to(local).as_posix()))


def download_dir(uri: str, local: Path) -> None:
    """Copies every file below the prefix `uri` into the folder `local`."""
    for info in list_files(uri):
        target = local / info.path
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_out(join(uri, info.path), target)


def copy_out(uri: str, local: Path) -> None:
    """Copies the file `uri` to `local`.

    Raises:
        StorageError: it cannot be read, or this machine has no room.
    """
    with open_input(uri) as source, local.open("wb") as out, translate_errors(uri):
        shutil.copyfileobj(source, out, _COPY_CHUNK)


def delete(uri: str) -> None:
    """Removes a file, or a folder with all below it; nothing happens when there is none.

    Raises:
        StorageError: it is a whole bucket or file system, or cannot be removed.
    """
    scheme, path = split(uri)
    if is_root(uri):
        raise StorageError(f"{shown(uri)} is a whole {'file system' if scheme == 'file' else 'bucket'}: not deleted")
    with translate_errors(uri):
        if scheme == "file":
            files.remove(Path(path))
        else:
            s3_objects.delete(path)
