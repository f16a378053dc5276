"""Short ways to read bytes, samples and real files through a source's reader."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from kit19_ray.sources.catalog import Source, load_catalog
from kit19_ray.sources.files import locate
from kit19_ray.sources.readers.base import LocatedFile, RejectedRow, SourceRow

Records = list[SourceRow | RejectedRow]


@pytest.fixture(scope="session")
def read_text() -> Callable[..., Records]:
    """Reads text or bytes as the file of a source: `read_text(source or id, data, companion, path=...)`."""

    def reads(
        source: Source | str, data: str | bytes, companion: str | bytes | None = None, path: str = "file"
    ) -> Records:
        if isinstance(source, str):
            source = load_catalog()[source]
        blobs = {"mem://main": data}
        companions: tuple[LocatedFile, ...] = ()
        if companion is not None:
            blobs["mem://companion"] = companion
            companions = (LocatedFile("mem://companion", "companion", "train"),)
        options = next((f.options for f in source.files if f.path == path), {})
        file = LocatedFile("mem://main", path, "train", options=options, companions=companions)

        def opener(uri: str) -> io.BytesIO:
            blob = blobs[uri]
            return io.BytesIO(blob.encode() if isinstance(blob, str) else blob)

        return list(source.read(file, opener))

    return reads


@pytest.fixture(scope="session")
def read_real(shared_sources: Path) -> Callable[[str, str], Records]:
    """Reads one file of the shared sources: `read_real("nsmc", "ratings_test.txt")`."""
    known: dict[tuple[str, str], Records] = {}

    def reads(source_id: str, path: str) -> Records:
        if (source_id, path) not in known:
            source = load_catalog()[source_id]
            split = next(f.split for f in source.files if f.path == path)
            (file,) = [f for f in locate(source_id, source, str(shared_sources), [split]) if f.path == path]
            known[source_id, path] = list(source.read(file))
        return known[source_id, path]

    return reads
