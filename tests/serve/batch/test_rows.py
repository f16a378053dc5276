"""Rows in parts: read, named by content, written whole."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit19_ray.errors import UserError
from kit19_ray.serve.batch import rows

ROWS: list[dict[str, Any]] = [{"id": n, "prompt": f"질문 {n} 가\u2028나"} for n in range(11)]


def write(folder: Path, name: str, found: list[dict[str, Any]] = ROWS) -> str:
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(found), path, row_group_size=3)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path.as_uri()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_the_parts_of_a_file_are_its_rows(tmp_path: Path, name: str) -> None:
    uri = write(tmp_path, name)
    parts = rows.outline(uri, 4)
    assert [part.count for part in parts] == [4, 4, 3]
    assert [row for part in parts for row in rows.read(part)] == ROWS
    assert rows.first(uri) == ROWS[0]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_part_is_named_by_its_place_and_its_content(tmp_path: Path, name: str) -> None:
    before = [rows.name_of(n, part) for n, part in enumerate(rows.outline(write(tmp_path, name), 4))]
    changed = [*ROWS[:5], {"id": 5, "prompt": "다른 질문"}, *ROWS[6:]]
    after = [rows.name_of(n, part) for n, part in enumerate(rows.outline(write(tmp_path, name, changed), 4))]
    assert [a == b for a, b in zip(before, after)] == [True, False, True]
    assert sorted(before) == before


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_rows_are_written_with_what_was_added(tmp_path: Path, name: str) -> None:
    part = rows.outline(write(tmp_path, name), 4)[1]
    added = [{"completion": f"답 {n}" if n else None, "completion_tokens": n or None} for n in range(4)]
    out = (tmp_path / f"out-{name}").as_uri()
    rows.write(out, part, rows.read(part), added)
    assert rows.written(out, "completion") == [None, "답 1", "답 2", "답 3"]
    assert rows.written(out, "prompt") == [row["prompt"] for row in ROWS[4:8]]


def test_a_line_that_is_no_object_is_a_row_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "a"}\nnot json\n[1]\n\xff\n')
    (part,) = rows.outline((tmp_path / "a.jsonl").as_uri(), 10)
    assert [rows.NOT_JSON in row for row in rows.read(part)] == [False, True, True, True]
    rows.write((tmp_path / "o.jsonl").as_uri(), part, rows.read(part), [{"x": n} for n in range(4)])
    written = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert written[1] == {"line": "not json", "x": 1}


def test_a_folder_is_its_row_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", "c.txt"):
        write(tmp_path, name)
    assert [uri.rsplit("/", 1)[1] for uri in rows.files(str(tmp_path))] == ["a.parquet", "b.jsonl"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.jsonl"):
        rows.files(str(tmp_path / "empty"))


def test_a_column_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column 'promt' .did you mean 'prompt'"):
        rows.check_column(rows.first(write(tmp_path, "a.jsonl")), "--prompt-column", "promt")
