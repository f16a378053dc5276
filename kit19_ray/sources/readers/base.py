"""What flows out of the original files: `LocatedFile` in, `SourceRow`s and `RejectedRow`s out.

Every row of a file becomes exactly one of the two, so rows in = records + rejects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict

ROW_EXCERPT = 500  # characters of a rejected row that are kept


@dataclass(frozen=True)
class LocatedFile:
    """One original file that exists."""

    uri: str
    """Where it is."""
    path: str
    """Its path below the source's folder, as the origin names it."""
    split: str
    """train, validation or test."""
    size: int = 0
    """Bytes."""
    sha256_expected: str | None = None
    """Hash of the published file; None when it is not known."""
    bytes_expected: int | None = None
    """Size of the published file; None when it is not known."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Reader options of this file alone; they win over the source's."""
    encoding: str | None = None
    """What it is in, as Python names it; None means UTF-8, or what its byte order mark says."""
    companions: tuple[LocatedFile, ...] = ()
    """Files read in step with this one (stylekqc: `topic/` beside `act/`); inputs too, so hash them as well."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One record as the file has it, with normalised text and canonical labels."""

    line: int
    """Physical line where the record starts, from 1."""
    fields: dict[str, str]
    group: str | None = None
    """Records with the same group belong on the same side of a train/validation split. None: the record alone."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One row that is no record."""

    line: int
    """Physical line where the row starts, from 1."""
    reason: str
    """snake_case: too_few_columns, too_many_columns, invalid_utf8, unknown_label, empty_field, placeholder, ..."""
    row: str
    """The row's first characters, for the log."""
    data: bytes = field(default=b"", compare=False, repr=False)
    """Its first bytes where they are no text, to find out what they are instead."""

    @classmethod
    def of(cls, line: int, reason: str, row: str | bytes) -> RejectedRow:
        """A reject with an excerpt of `row`."""
        data = b""
        if isinstance(row, bytes):
            data = row[:ROW_EXCERPT] if reason == "invalid_utf8" else b""
            row = row[: 4 * ROW_EXCERPT].decode("utf-8", "replace")
        return cls(line, reason, row[:ROW_EXCERPT], data)


Opener = Callable[[str], BinaryIO]
"""Opens a URI for reading in binary."""


def open_uri(uri: str, opener: Opener | None) -> BinaryIO:
    """Opens `uri` with `opener`, or with `storage.open_input` when that is None."""
    if opener is not None:
        return opener(uri)
    from kit19_ray.io import storage

    stream: BinaryIO = storage.open_input(uri)
    return stream


class NoOptions(BaseModel):
    """A reader of one dataset's own format takes no options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Reader = Callable[[Any, LocatedFile, BinaryIO, "Opener | None"], Iterator[SourceRow | RejectedRow]]
"""Streams one file: (its options, the file, its bytes, how to open companions). Memory is bounded whatever its size.

Raises:
    SourceError: the file as a whole cannot be used, e.g. a column is missing from its header. A bad row never raises;
        it is a RejectedRow.
"""
