"""docs/field-reports.md names tests that exist, and the small inputs it speaks of behave as it says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import Source
from kit19_ray.sources.files import locate
from kit19_ray.sources.readers.base import SourceRow
from tests.sources.stranger import spec

ROOT = Path(__file__).parents[1]
ROWS = [line for line in (ROOT / "docs" / "field-reports.md").read_text().splitlines() if line.startswith("| ")][1:]


@pytest.fixture(scope="module")
def cases() -> Path:
    folder = Path(os.environ.get("KIT19_SHARED") or ROOT.parent / "shared") / "cases"
    if not (folder / "README.md").is_file():
        pytest.skip(f"the small inputs from the field are not at {folder}; set KIT19_SHARED")
    return folder


@pytest.mark.parametrize("row", ROWS)
def test_each_report_has_a_test(row: str) -> None:
    named = re.findall(r"`(tests/[^`:]+)::(\w+)`", row)
    assert named and all(cell.strip() for cell in row.strip("|").split(" | "))
    for path, name in named:
        assert re.search(rf"^ *def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path} has no {name}"


def test_every_kind_of_the_issue_has_reports() -> None:
    kinds = {row.split("|")[1].strip() for row in ROWS}
    assert {
        "names",
        "encodings",
        "rows",
        "models",
        "Ray",
        "machines",
        "output",
        "secrets",
        "hostile",
        "crashes",
    } <= kinds


def _read(cases: Path, tmp_path: Path, name: str, encoding: str | None = None, text: str = "text") -> list[SourceRow]:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / name).write_bytes((cases / "data" / name).read_bytes())
    options = (
        {"delimiter": ",", "quoting": "csv", "rename": {text: "text"}} if name.endswith(".csv") else {"keep": ["text"]}
    )
    reader = "delimited" if name.endswith(".csv") else "jsonl"
    own = Source.model_validate(spec(reader=reader, options=options, files=[{"path": name, "split": "train"}]))
    rows = [row for f in locate("own", own, str(tmp_path), ["train"], encoding) for row in own.read(f)]
    return [row for row in rows if isinstance(row, SourceRow)]


@pytest.mark.parametrize(
    ("name", "encoding", "text"),
    [
        ("rows.csv", None, "text"),
        ("excel-cp949.csv", "cp949", "text"),
        ("header-decomposed.csv", None, "본문"),
        ("old-mac.csv", None, "text"),
        ("long-quoted-cell.csv", None, "text"),
    ],
)
def test_a_file_from_the_field_is_read(cases: Path, tmp_path: Path, name: str, encoding: str | None, text: str) -> None:
    rows = _read(cases, tmp_path, name, encoding, text)
    assert rows and all(row.fields["text"] for row in rows)


@pytest.mark.parametrize(("name", "said"), [("excel-cp949.csv", "text in cp949"), ("header-only.csv", "it has no row")])
def test_a_file_that_cannot_be_used_says_why(cases: Path, tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        _read(cases, tmp_path, name)


def test_a_packed_file_is_read(cases: Path, tmp_path: Path) -> None:
    import gzip
    import json

    keys = list(json.loads(gzip.decompress((cases / "data" / "rows.jsonl.gz").read_bytes()).splitlines()[0]))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "rows.jsonl.gz").write_bytes((cases / "data" / "rows.jsonl.gz").read_bytes())
    files = [{"path": "*.jsonl.gz", "split": "train"}]
    own = Source.model_validate(spec(reader="jsonl", options={"keep": keys}, files=files))
    rows = [row for f in locate("own", own, str(tmp_path), ["train"]) for row in own.read(f)]
    assert len(rows) > 50 and all(isinstance(row, SourceRow) for row in rows)


def test_what_a_mac_leaves_is_passed_over(cases: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in ("rows.csv", "._rows.csv"):
        (tmp_path / "own" / name).write_bytes((cases / "data" / name).read_bytes())
    own = Source.model_validate(spec(files=[{"path": "*.csv", "split": "train"}]))
    assert [file.path for file in locate("own", own, str(tmp_path), ["train"])] == ["rows.csv"]
