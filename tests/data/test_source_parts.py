"""A file in parts gives the rows, the lines and the hash of the whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data import source_parts
from kit19_ray.errors import SourceError
from kit19_ray.io import storage
from kit19_ray.sources.catalog import Source
from kit19_ray.sources.readers.base import LocatedFile


def source(reader: str, **options: Any) -> Source:
    licence = {"name": "CC0", "commercial": True, "derivatives": True}
    return Source.model_validate(
        {"title": "t", "homepage": "https://example.org", "licence": licence, "citation": "c", "reader": reader}
        | {"options": options, "files": [{"path": "rows", "split": "train"}]}
    )


TABLE = source("delimited", keep=["text"])
BARE = source("delimited", header=["text", "label"], delimiter=",")
JSONL = source("jsonl", keep=["text"])
QUOTED = source("delimited", quoting="csv", keep=["text"])


def located(folder: Path, data: bytes) -> LocatedFile:
    path = folder / "rows"
    path.write_bytes(data)
    return LocatedFile(f"file://{path}", "rows", "train", len(data))


def check(folder: Path, described: Source, data: bytes, size: int) -> int:
    file = located(folder, data)
    sha256, length, parts = source_parts.measure(described, file, size)
    assert (sha256, length) == (hashlib.sha256(data).hexdigest(), len(data))
    assert [p.start for p in parts] == [0, *(p.end for p in parts[:-1])] and parts[-1].end == len(data)
    try:
        whole = list(described.read(file, storage.open_input))
    except SourceError:
        return 0  # a file without one usable row is an error of its own
    assert [row for part in parts for row in source_parts.read(described, part)] == whole
    return len(parts)


lines = st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b), max_size=20)


@pytest.mark.parametrize("described", [TABLE, BARE, JSONL, QUOTED], ids=["table", "bare", "jsonl", "quoted"])
@given(rows=lines, size=st.integers(1, 40), mark=st.booleans(), end=st.booleans())
def test_parts_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory, described: Source, rows: list[bytes], size: int, mark: bool, end: bool
) -> None:
    head = [b"text\tlabel" if described in (TABLE, QUOTED) else b'{"text": "x"}']
    data = (b"\xef\xbb\xbf" if mark else b"") + b"\n".join(head + rows) + (b"\n" if end else b"")
    check(tmp_path_factory.mktemp("p", numbered=True), described, data, size)


def test_a_file_is_cut_where_its_format_allows(tmp_path: Path) -> None:
    rows = "".join(f"글 {i}\tx\n" for i in range(100)).encode()
    assert check(tmp_path, TABLE, b"text\tlabel\n" + rows, 50) > 10
    assert check(tmp_path, QUOTED, b"text\tlabel\n" + rows, 50) == 1  # a quoted cell may hold a line end
    assert check(tmp_path, JSONL, b'{"text": "\xea\xb8\x80"}\n' * 50, 50) > 10


def test_a_part_that_was_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    data = b"text\tlabel\n" + b"good\tx\n" * 40
    file = located(tmp_path, data)
    _, _, parts = source_parts.measure(TABLE, file, 50)
    (tmp_path / "rows").write_bytes(data.replace(b"good", b"evil"))
    for part in parts:
        with pytest.raises(SourceError, match="was changed while it was read"):
            list(source_parts.read(TABLE, part))
    (tmp_path / "rows").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="was changed while it was read"):
        list(source_parts.read(TABLE, parts[-1]))
