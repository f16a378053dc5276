"""One file out of a published zip or tar archive. Nothing else of the archive is written, so no name in it matters."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from kit19_ray.errors import FetchError, nearest
from kit19_ray.fetch.plan import Published

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


def _absent(published: Published, member: str, names: list[str]) -> FetchError:
    return FetchError(f"{published.shown}: has no file {member!r}{nearest(member, names)}")
