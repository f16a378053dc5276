"""KorSTS: similarity scores of mixed precision, as one decimal and as a whole number."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import BinaryIO

from kit19_ray.sources.readers.base import LocatedFile, NoOptions, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.delimited import DelimitedOptions, open_table
from kit19_ray.sources.readers.text import normalise

MAX_SCORE = 5


def _rounded(score: Decimal, step: str) -> str:
    return str(abs(score).quantize(Decimal(step), ROUND_HALF_UP))  # abs: no "-0"


def read_korsts(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """sentence1, sentence2, score ("0.0" to "5.0") and label ("0" to "5", the score rounded, halves up)."""
    table = open_table(DelimitedOptions(), file, stream)
    first, second, score = (table.index(c) for c in ("sentence1", "sentence2", "score"))
    for row in table:
        if isinstance(row, RejectedRow):
            yield row
            continue
        one, two = normalise(row.cells[first]), normalise(row.cells[second])
        try:
            value = Decimal(row.cells[score].strip())
        except InvalidOperation:
            yield RejectedRow.of(row.line, "not_a_number", " | ".join(row.cells))
            continue
        if not (value.is_finite() and 0 <= value <= MAX_SCORE):
            yield RejectedRow.of(row.line, "out_of_range", " | ".join(row.cells))
        elif not one or not two:
            yield RejectedRow.of(row.line, "empty_field", " | ".join(row.cells))
        else:
            fields = {"sentence1": one, "sentence2": two}
            yield SourceRow(
                row.line,
                fields | {"score": _rounded(value, "0.1"), "label": _rounded(value, "1")},
                one,
            )
