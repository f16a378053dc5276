"""The rows of `kit19 generate`: JSONL (gzipped or not) and parquet, read and written in parts.

A part is some rows of one file, with a hash of what they say: so a part that is there need not be made again, and one
whose input changed is.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kit19_ray.errors import UserError, nearest, quote
from kit19_ray.io import storage
from kit19_ray.io.uris import shown

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
NOT_JSON = "\N{NULL}line"
"""Column of a row that is no JSON object, with the line's text; no column of JSON or parquet is called so."""


@dataclass(frozen=True)
class RowRange:
    """Some rows of one file.

    Attributes:
        start: number of its first row in the file.
        offset: byte at which that row begins; 0 of what must be read from its beginning.
    """

    file: str
    start: int
    count: int
    offset: int
    sha256: str


def files(uri: str) -> list[str]:
    """The row files at a file or below a folder, in order.

    Raises:
        UserError: there is none.
        StorageError: the place cannot be read.
    """
    uri = storage.normalise(uri)
    if uri.endswith(SUFFIXES) and storage.exists(uri) and not storage.is_dir(uri):
        return [uri]
    found = sorted(info.path for info in storage.list_files(uri) if info.path.endswith(SUFFIXES))
    if not found:
        raise UserError(f"--in: {shown(uri)} holds no {', '.join(SUFFIXES)} file")
    return [storage.join(uri, path) for path in found]


def outline(uri: str, rows_per_part: int) -> list[RowRange]:
    """The parts of a file; reads all of it, a part at a time."""
    parts: list[RowRange] = []
    start = offset = 0
    for rows, size in _chunks(uri, rows_per_part):
        text = json.dumps(rows, sort_keys=True, ensure_ascii=False, default=str)
        sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        parts.append(RowRange(uri, start, len(rows), offset, sha256))
        start, offset = start + len(rows), offset + size
    return parts


def _chunks(uri: str, rows_per_part: int) -> Iterator[tuple[list[Row], int]]:
    """(rows, bytes they take in the file) of each part; 0 bytes where a part cannot be found by them."""
    with closing(storage.open_input(uri)) as file:
        if uri.endswith(".parquet"):
            for batch in pq.ParquetFile(file).iter_batches(rows_per_part):
                yield batch.to_pylist(), 0
            return
        packed = uri.endswith(".gz")
        lines = iter(gzip.GzipFile(fileobj=file) if packed else io.BufferedReader(file))
        while taken := list(itertools.islice(lines, rows_per_part)):
            yield [_row(line) for line in taken], 0 if packed else sum(map(len, taken))


def read(part: RowRange) -> list[Row]:
    """The rows of a part."""
    with closing(storage.open_input(part.file)) as file:
        if part.file.endswith(".parquet"):
            return list(_from_parquet(pq.ParquetFile(file), part).to_pylist())
        if part.file.endswith(".gz"):
            lines = itertools.islice(gzip.GzipFile(fileobj=file), part.start, part.start + part.count)
        else:
            file.seek(part.offset)
            lines = itertools.islice(io.BufferedReader(file), part.count)
        return [_row(line) for line in lines]


def _from_parquet(file: pq.ParquetFile, part: RowRange) -> pa.Table:
    groups, first, begin = [], 0, None
    for number in range(file.num_row_groups):
        size = file.metadata.row_group(number).num_rows
        if first < part.start + part.count and first + size > part.start:
            begin = first if begin is None else begin
            groups.append(number)
        first += size
    return file.read_row_groups(groups).slice(part.start - (begin or 0), part.count)


def _row(line: bytes) -> Row:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {NOT_JSON: line.decode("utf-8", "replace").rstrip("\r\n")}


def name_of(number: int, part: RowRange) -> str:
    """The name of a part's output: in the order of the rows, and another one for other rows."""
    suffix = ".parquet" if part.file.endswith(".parquet") else ".jsonl"
    return f"part-{number:06d}-{part.sha256[:16]}{suffix}"


def write(uri: str, part: RowRange, rows: list[Row], added: list[Row]) -> None:
    """Writes a part whole: each row with what was added to it."""
    if uri.endswith(".parquet"):
        with closing(storage.open_input(part.file)) as file:
            table = _from_parquet(pq.ParquetFile(file), part)
        for name in added[0]:
            kind = pa.int64() if name.endswith("_tokens") else pa.string()
            table = table.append_column(name, pa.array([row[name] for row in added], kind))
        with storage.open_output(uri) as out:
            pq.write_table(table, out)
        return
    lines = [json.dumps({**_plain(row), **more}, ensure_ascii=False) + "\n" for row, more in zip(rows, added)]
    storage.write_bytes(uri, "".join(lines).encode("utf-8", "surrogatepass"))


def _plain(row: Row) -> Row:
    return {"line": row[NOT_JSON]} if NOT_JSON in row else row


def first(uri: str) -> Row:
    """The first row of a file; empty where there is none.

    Raises:
        UserError: it is not what its name says.
    """
    try:
        return next((rows[0] for rows, _ in _chunks(uri, 1)), {})
    except (pa.ArrowException, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"--in: {shown(uri)}: {str(error)[:200]}") from None


def check_column(row: Row, option: str, name: str) -> None:
    """Refuses a column that the first row does not have.

    Raises:
        UserError: with the nearest one.
    """
    if row and NOT_JSON not in row and name not in row:
        have = ", ".join(map(repr, list(row)[:10]))
        raise UserError(f"{option}: the first row has no column {quote(name)}{nearest(name, row)}; it has {have}")


def written(uri: str, column: str) -> list[Any]:
    """One column of a part's output."""
    with closing(storage.open_input(uri)) as file:
        if uri.endswith(".parquet"):
            return list(pq.ParquetFile(file).read([column]).column(column).to_pylist())
        return [json.loads(line)[column] for line in file.read().splitlines()]
