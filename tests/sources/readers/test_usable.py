"""A file without one usable row is an error that says why."""

from __future__ import annotations

import gzip
import io
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import Source
from kit19_ray.sources.files import locate
from kit19_ray.sources.readers.base import LocatedFile, SourceRow
from tests.sources.stranger import spec

ROWS = "글,표\n" + "".join(f"돌 {n} 개가 있다,{n % 2}\n" for n in range(20))
OPTIONS = {"delimiter": ",", "quoting": "csv", "rename": {"글": "text", "표": "label"}}


def _source(**file: Any) -> Source:
    return Source.model_validate(spec(options=OPTIONS, files=[{"path": "rows.csv", "split": "train"} | file]))


def _read(folder: Path, data: bytes, encoding: str | None = None) -> list[Any]:
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / "rows.csv").write_bytes(data)
    own = _source()
    return [row for f in locate("own", own, str(folder), ["train"], encoding) for row in own.read(f)]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (ROWS.encode(), None),
        (ROWS.encode("utf-8-sig"), None),
        (ROWS.encode("utf-16"), None),
        (ROWS.encode("cp949"), "cp949"),
        (gzip.compress(ROWS.encode()), None),
        (ROWS.replace("\n", "\r").encode(), None),
        (ROWS.replace("\n", "\r\n").encode(), None),
        (unicodedata.normalize("NFD", ROWS).encode(), None),
    ],
)
def test_a_file_as_korean_excel_a_mac_or_a_packer_leaves_it(tmp_path: Path, data: bytes, encoding: str | None) -> None:
    rows = _read(tmp_path, data, encoding)
    assert [row.fields for row in rows] == [{"text": f"돌 {n} 개가 있다", "label": str(n % 2)} for n in range(20)]


def test_the_catalogue_may_say_what_a_file_is_in(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "rows.csv").write_bytes(ROWS.encode("cp949"))
    own = _source(encoding="cp949")
    rows = [row for f in locate("own", own, str(tmp_path), ["train"]) for row in own.read(f)]
    assert len(rows) == 20 and all(isinstance(row, SourceRow) for row in rows)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "its header row is missing"),
        ("글,표\n".encode(), "it has no row\nthe file is empty, or holds its header alone"),
        (
            "글,표\n".encode() + "붉은 돌,1\n".encode("cp949") * 5 + "돌\n".encode(),
            "not one of its 6 rows is usable: 5 of them invalid_utf8, such as line 2: .*\n.*text in cp949: set data",
        ),
        ("글,표\n".encode() + b"a\n" * 3, "3 of them too_few_columns, such as line 2: 'a'\n"),
        ("글,표\n".encode() + b"x" * 100_000 + b"\n", "1 of them too_few_columns"),
        (b"x" * 100_000 + b"\n1\n", "column .* is missing"),
        (b"PK\x03\x04", "a zip archive"),
    ],
)
def test_no_usable_row_is_an_error(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=f"(?s)rows.csv.*{said}") as told:
        _read(tmp_path, data)
    assert len(str(told.value)) < 600


def test_names_from_a_mac_and_what_it_leaves_beside_them(tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "__MACOSX").mkdir(parents=True)
    (own / unicodedata.normalize("NFD", "자료 1.csv")).write_bytes(ROWS.encode())
    (own / unicodedata.normalize("NFD", "._자료 1.csv")).write_bytes(b"\x00\x05\x16\x07")
    (own / ".DS_Store").write_bytes(b"\x00")
    found = locate("own", _source(path="*.csv"), str(tmp_path), ["train"])
    assert [file.path for file in found] == [unicodedata.normalize("NFC", "자료 1.csv")]
    named = _source(path="자료 1.csv")
    (file,) = locate("own", named, str(tmp_path), ["train"])
    assert sum(isinstance(row, SourceRow) for row in named.read(file)) == 20


def test_a_part_of_a_file_says_nothing_of_the_rest() -> None:
    data = "글,표\n".encode() + b"a\n" * 3
    part = LocatedFile("mem://rows.csv", "rows.csv", "train", size=len(data) + 1)
    assert len(list(_source().read(part, lambda _: io.BytesIO(data)))) == 3
    whole = replace(part, size=len(data))
    with pytest.raises(SourceError, match="not one of its 3 rows is usable"):
        list(_source().read(whole, lambda _: io.BytesIO(data)))
