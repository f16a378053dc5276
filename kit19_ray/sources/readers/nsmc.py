"""NSMC: a file that was written with CSV quoting twice and is to be read without any."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from kit19_ray.sources.readers.base import LocatedFile, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.delimited import DelimitedOptions, read_cells
from kit19_ray.sources.readers.text import normalise


def unnest(document: str) -> str:
    """Undoes two layers of CSV quoting: three quotes at either end, and four for each quote within."""
    if len(document) < 6 or not (document.startswith('"""') and document.endswith('"""')):
        return document
    for _ in range(2):
        document = document[1:-1].replace('""', '"')
    return document


def read_nsmc(
    options: DelimitedOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """text and label of a review; the options are those of `delimited`, with the text in the field `text`."""
    return read_cells(options, file, stream, lambda name, cell: normalise(unnest(cell) if name == "text" else cell))
