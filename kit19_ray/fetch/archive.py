"""One file out of a published zip or tar archive. Nothing else of the archive is written, so no name in it matters."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from kit19_ray.errors import FetchError, nearest, quote
from kit19_ray.fetch.plan import Published

_CHUNK = 1 << 20  # bytes
_MOST_RATIO, _FREE = 250, 256 << 20  # of text gzip makes a tenth; a thousandth is made to fill a disk
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError)


@contextmanager
def opened(path: Path, published: Published, member: str) -> Iterator[BinaryIO]:
    """A stream of `member`, uncompressed.

    Raises:
        FetchError: the archive has no such file, or cannot be unpacked (while it is read, too).
    """
    zipped = published.url.endswith(".zip")
    try:
        with _zip(path, published, member) if zipped else _tar(path, published, member) as stream:
            yield stream
    except _BROKEN as error:
        raise FetchError(f"{published.shown}: cannot be unpacked: {error}") from error


@contextmanager
def _zip(path: Path, published: Published, member: str) -> Iterator[BinaryIO]:
    with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        if member not in names:
            raise _absent(published, member, names)
        with archive.open(member) as stream:
            yield cast(BinaryIO, stream)


@contextmanager
def _tar(path: Path, published: Published, member: str) -> Iterator[BinaryIO]:
    with tarfile.open(path, "r:gz" if published.url.endswith(".gz") else "r:") as archive:
        names = []
        for info in archive:
            if info.isreg() and info.name == member:
                stream = archive.extractfile(info)
                assert stream is not None
                yield cast(BinaryIO, stream)
                return
            if info.isreg():
                names.append(info.name)
        raise _absent(published, member, names)


def copy(source: BinaryIO, out: BinaryIO, name: str, packed: int, size: int | None, sha256: str | None) -> None:
    """Copies an unpacked member, comparing it with what is known of it; stops past its size.

    Args:
        name: for messages.
        packed: bytes of the archive. What is of no known size may be as much larger as text is at most.

    Raises:
        FetchError: it is another file, or far too large.
    """
    most = size if size is not None else max(_FREE, _MOST_RATIO * packed)
    digest, copied = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        copied += len(chunk)
        if copied > most:
            raise FetchError(f"{name}: it unpacks to more than {most:,} bytes: not unpacked further")
        digest.update(chunk)
        out.write(chunk)
    if size not in (None, copied):
        raise FetchError(f"{name}: it has {copied:,} bytes, the published file has {size:,}")
    if sha256 not in (None, digest.hexdigest()):
        raise FetchError(f"{name}: its SHA-256 is {digest.hexdigest()}, the published file's is {sha256}")


def _absent(published: Published, member: str, names: list[str]) -> FetchError:
    return FetchError(f"{published.shown}: has no file {quote(member)}{nearest(member, names)}")
