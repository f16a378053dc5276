"""Rows of delimited files, with or without CSV quoting, each with the physical line it starts on."""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

from kit19_ray.errors import SourceError, nearest
from kit19_ray.sources.readers.base import RejectedRow
from kit19_ray.sources.readers.lines import MAX_LINE, physical_lines
from kit19_ray.sources.readers.text import composed

# Python's own limit is 131,072 letters of a quoted cell and none of a bare one; ours is that of a line for both.
csv.field_size_limit(MAX_LINE)
MAX_RECORD_LINES = 1000  # lines one quoted record may span before its opening quote counts as never closed


_SHOWN, _FEW = 60, 20  # characters of a column's name that a message repeats, and columns


def shown(text: str) -> str:
    """`text` for a message, in quotes where it is short, else its beginning."""
    return repr(text) if len(text) <= _SHOWN else text[:200] + ("..." if len(text) > 200 else "")


@dataclass(frozen=True)
class Dialect:
    """How a file's rows are cut into cells."""

    delimiter: str = "\t"
    quoting: Literal["none", "csv"] = "none"
    """none: a quote is a letter like any other. csv: RFC 4180, cells may hold delimiters, line feeds and `""`."""


class TableRow(NamedTuple):
    """The cells of one row, decoded and otherwise as they are."""

    line: int
    cells: list[str]


def _unquoted(stream: BinaryIO, delimiter: str) -> Iterator[TableRow | RejectedRow]:
    for number, data in enumerate(physical_lines(stream), 1):
        if data is None:
            yield RejectedRow(number, "line_too_long", "")
            continue
        try:
            yield TableRow(number, data.decode().split(delimiter))
        except UnicodeDecodeError:
            yield RejectedRow.of(number, "invalid_utf8", data)


def _parsed(line: int, data: bytes, delimiter: str) -> TableRow | RejectedRow:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return RejectedRow.of(line, "invalid_utf8", data)
    if '"' not in text:
        return TableRow(line, text.split(delimiter))
    try:
        (cells,) = csv.reader([text], delimiter=delimiter, strict=True)
    except (
        csv.Error,
        ValueError,
    ):  # ValueError: a cell outside quotes holds a line break, so more than one row
        return RejectedRow.of(line, "malformed_csv", text)
    return TableRow(line, cells)


def _quoted(stream: BinaryIO, delimiter: str) -> Iterator[TableRow | RejectedRow]:
    numbered = enumerate(physical_lines(stream), 1)
    ahead: deque[tuple[int, bytes | None]] = deque()  # lines given back after a quote that was never closed
    while True:
        number, data = ahead.popleft() if ahead else next(numbered, (0, None))
        if number == 0:
            return
        if data is None:
            yield RejectedRow(number, "line_too_long", "")
            continue
        quotes = data.count(b'"')
        if quotes % 2 == 0:
            yield _parsed(number, data, delimiter)
            continue
        # Every quoted cell holds an even number of quotes, so an odd count means that the record goes on.
        taken: list[tuple[int, bytes | None]] = []
        parts = [data]
        while quotes % 2 and len(taken) < MAX_RECORD_LINES:
            following = ahead.popleft() if ahead else next(numbered, None)
            if following is None:
                break
            taken.append(following)
            if following[1] is None:
                break
            parts.append(following[1])
            quotes += following[1].count(b'"')
        if quotes % 2 or taken[-1][1] is None:
            ahead.extendleft(reversed(taken))
            yield RejectedRow.of(number, "unclosed_quote", data)
        else:
            yield _parsed(number, b"\n".join(parts), delimiter)


def read_rows(stream: BinaryIO, dialect: Dialect) -> Iterator[TableRow | RejectedRow]:
    """Every row of the file, its header included, as cells or as a Reject."""
    if dialect.quoting == "none":
        return _unquoted(stream, dialect.delimiter)
    return _quoted(stream, dialect.delimiter)


class Table:
    """A file with named columns.

    Args:
        name: the file's name for messages.
        header: column names of a file that has no header row.

    Raises:
        SourceError: the header row is missing, unreadable or names a column twice.
    """

    def __init__(self, stream: BinaryIO, name: str, dialect: Dialect, header: Sequence[str] | None = None) -> None:
        self.name = name
        self._rows = read_rows(stream, dialect)
        if header is None:
            first = next(self._rows, None)
            if first is None:
                raise SourceError(f"{name}, line 1: the file is empty; its header row is missing")
            if isinstance(first, RejectedRow):
                raise SourceError(f"{name}, line {first.line}: the header row is unreadable ({first.reason})")
            header = first.cells
        self.columns: list[str] = list(map(composed, header))
        twice = sorted(c for c, number in Counter(c for c in self.columns if c).items() if number > 1)
        if twice:
            raise SourceError(f"{name}, line 1: column {shown(twice[0])} stands twice in the header")

    def index(self, column: str) -> int:
        """Where a column is.

        Raises:
            SourceError: the header does not have it.
        """
        wanted = composed(column)
        if wanted in self.columns:
            return self.columns.index(wanted)
        few = [c[:_SHOWN] for c in self.columns[:_FEW]]
        raise SourceError(
            f"{self.name}, line 1: column {shown(column)} is missing{nearest(wanted, few)}; the header has "
            f"{shown(', '.join(map(repr, few)))}"
            + (f" and {more} more" if (more := len(self.columns) - _FEW) > 0 else "")
        )

    def __iter__(self) -> Iterator[TableRow | RejectedRow]:
        """Rows as wide as the header; the others are rejects."""
        width = len(self.columns)
        for row in self._rows:
            if isinstance(row, TableRow) and len(row.cells) != width:
                reason = "too_few_columns" if len(row.cells) < width else "too_many_columns"
                yield RejectedRow.of(row.line, reason, " | ".join(row.cells))
            else:
                yield row
