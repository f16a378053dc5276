"""A file of which not one row is usable is an error that says why, not a file with few rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from kit19_ray.errors import SourceError, quote
from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from kit19_ray.sources.readers.byte_stream import likely_encoding


def some_usable(
    rows: Iterator[SourceRow | RejectedRow], name: str, whole: Callable[[], bool]
) -> Iterator[SourceRow | RejectedRow]:
    """The rows of a file.

    Args:
        name: the file's, for messages.
        whole: asked after the last row: whether these were all of the file.

    Raises:
        SourceError: after the last row of a whole file, when none was a record: the commonest reason, and one row.
    """
    reasons: Counter[str] = Counter()
    first: dict[str, RejectedRow] = {}
    usable = False
    for row in rows:
        if isinstance(row, SourceRow):
            usable = True
        elif not usable:
            reasons[row.reason] += 1
            first.setdefault(row.reason, row)
        yield row
    if usable or not whole():
        return
    if not reasons:
        raise SourceError(f"{name}: it has no row", hint="the file is empty, or holds its header alone")
    row = first[commonest(reasons)]
    known = likely_encoding(row.data) if row.data else None
    raise unusable(name, reasons, row.line, row.row, known)


def commonest(reasons: Counter[str]) -> str:
    """The reason that most rows have."""
    return reasons.most_common(1)[0][0]


def unusable(name: str, reasons: Counter[str], line: int, row: str, encoding: str | None = None) -> SourceError:
    """The error of a file without one usable row.

    Args:
        line, row: of one whose reason is the commonest.
        encoding: what its bytes are text in, where that is known.
    """
    reason = commonest(reasons)
    hint = "`kit19 tasks show <task>` has the format that is expected"
    if reason == "invalid_utf8":
        hint = "the file is in another encoding than UTF-8: name it in data.encoding"
        if encoding:
            hint = f"its bytes are text in {encoding}: set data.encoding={{<source>: {encoding}}}"
    return SourceError(
        f"{name}: not one of its {sum(reasons.values()):,} rows is usable: {reasons[reason]:,} of them {reason}, such "
        f"as line {line}: {quote(row)}",
        hint=hint,
    )
