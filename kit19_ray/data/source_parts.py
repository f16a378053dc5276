"""Source files in parts, so that many tasks read one file: hashed once, cut at line ends, held to their hash when read.

    file     | header | 0 ......... | 1 ......... | 2 ....|       32 MiB or so a part
    part 1     header +  bytes of 1                              what the reader gets: a small file of its own

A format may be cut where each physical line is a row by itself. Others are one part, whole. A reader never knows:
the part stands behind the file's own header (or one empty line), and line numbers are put right afterwards.
"""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from kit19_ray.errors import SourceError
from kit19_ray.io import storage
from kit19_ray.sources.catalog import Source
from kit19_ray.sources.readers import instructions
from kit19_ray.sources.readers.base import LocatedFile, RejectedRow, SourceRow
from kit19_ray.sources.readers.registry import options_of
from kit19_ray.utils.hashing import sha256_stream

PART = 32 << 20  # bytes
_CHUNK = 1 << 20  # bytes read at once
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, zstd
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # UTF-16 and UTF-32: a byte 0A is not a line end there
_LINES = frozenset({"delimited", "nsmc", "jsonl", "korsts", "lines"})


@dataclass(frozen=True)
class FilePart:
    """A run of whole lines of a file, or the whole of it.

    Attributes:
        start, end: bytes of the file.
        line: physical lines before `start`.
        header: bytes at the file's start that are put before a later part; 0 puts one empty line there.
        sha256: of the bytes from `start` to `end`.
        companions: SHA-256 by URI of the files that are read in step.
    """

    file: LocatedFile
    start: int
    end: int
    line: int
    header: int
    sha256: str
    companions: tuple[tuple[str, str], ...] = ()


def has_row_per_line(source: Source, file: LocatedFile) -> bool:
    """Whether each physical line of the file is a row, so that it may be cut at any line end."""
    if file.encoding is not None and codecs.lookup(file.encoding).name.startswith(("utf-16", "utf-32")):
        return False  # a byte 0A is not a line end there
    if source.reader == "instructions":
        return file.path.lower().endswith((".jsonl", ".txt"))
    if source.reader not in _LINES or file.companions:
        return False
    options = options_of(source.reader).model_validate({**source.options, **file.options})
    return getattr(options, "quoting", "none") == "none"


def has_header(source: Source, file: LocatedFile) -> bool:
    """Whether the file's first line names its columns."""
    options = options_of(source.reader).model_validate({**source.options, **file.options})
    return source.reader == "korsts" or getattr(options, "header", False) is True


def measure(source: Source, file: LocatedFile, size: int = PART) -> tuple[str, int, list[FilePart]]:
    """Reads a file once: its SHA-256, its bytes and its parts.

    Args:
        size: bytes of a part, at least; it ends with the line that reaches it.
    """
    whole, part = hashlib.sha256(), hashlib.sha256()
    may_cut, header = has_row_per_line(source, file), 0
    parts: list[FilePart] = []
    start = position = line = lines = 0
    with closing(storage.open_input(file.uri)) as stream:
        while chunk := stream.read(_CHUNK):
            if position == 0:
                may_cut = may_cut and not chunk.startswith(_COMPRESSED + _WIDE) and b"\0" not in chunk[:4]
                if has_header(source, file):
                    header = chunk.find(b"\n") + 1
                    may_cut = may_cut and header > 0
            whole.update(chunk)
            while may_cut and position + len(chunk) - start >= size:
                cut = chunk.find(b"\n", max(0, start + size - position - 1)) + 1
                if not cut:
                    break  # the line goes on in the next chunk
                part.update(chunk[:cut])
                lines += chunk.count(b"\n", 0, cut)
                position, chunk = position + cut, chunk[cut:]
                parts.append(FilePart(file, start, position, line, header, part.hexdigest()))
                start, line, part = position, line + lines, hashlib.sha256()
                lines = 0
            part.update(chunk)
            lines += chunk.count(b"\n")
            position += len(chunk)
    if position > start or not parts:
        parts.append(FilePart(file, start, position, line, header, part.hexdigest()))
    return whole.hexdigest(), position, parts


def read(source: Source, part: FilePart) -> Iterator[SourceRow | RejectedRow]:
    """The part's rows, with their lines in the file.

    Raises:
        SourceError: the bytes are not those that were measured, so the file was replaced meanwhile; it is said after
            the last row, so a caller that writes must not call its output finished before.
    """
    if instructions.is_binary(part.file.path):
        yield from source.read(part.file, storage.open_input)
        with closing(storage.open_input(part.file.uri)) as again:  # it is read from any place, so hashed afterwards
            if sha256_stream(again)[0] != part.sha256:
                raise _changed(part.file.uri)
        return
    streams: list[_Stream] = []

    def opener(uri: str) -> BinaryIO:
        opened = _Stream(part, uri)
        streams.append(opened)
        return cast(BinaryIO, io.BufferedReader(opened, _CHUNK))

    later = part.start > 0
    for number, row in enumerate(source.read(part.file, opener)):
        if not later:
            yield row
        elif number or part.header:  # the empty line before a part without header is no row of the file
            shifted = row.line - 1 + part.line
            yield (
                SourceRow(shifted, row.fields, row.group) if isinstance(row, SourceRow) else replace(row, line=shifted)
            )
    for stream in streams:
        stream.verify()


def _changed(uri: str) -> SourceError:
    return SourceError(
        f"{uri}: the file was changed while it was read: its SHA-256 is not what it was at first",
        hint="leave source files alone while they are read, and run the build again",
    )


class _Stream(io.RawIOBase):
    """A part as a file of its own, hashed while it is read."""

    def __init__(self, part: FilePart, uri: str) -> None:
        super().__init__()
        self._uri = uri
        self._is_part = uri == part.file.uri
        self._expected = part.sha256 if self._is_part else dict(part.companions)[uri]
        self._digest = hashlib.sha256()
        self._file = storage.open_input(uri)
        self._before = b""
        self._left = 0  # bytes of the part that are not read yet
        if self._is_part:
            if part.start:
                self._before = self._file.read(part.header) if part.header else b"\n"
                self._file.seek(part.start)
            self._left = part.end - part.start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's name for it is private
        if self._before:
            data, self._before = self._before[: len(buffer)], self._before[len(buffer) :]
        else:
            data = self._file.read(min(len(buffer), self._left) if self._is_part else len(buffer))
            self._digest.update(data)
            if self._is_part:
                self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def verify(self) -> None:
        """Closes the file.

        Raises:
            SourceError: it is not what was measured.
        """
        self.close()
        if self._digest.hexdigest() != self._expected:
            raise _changed(self._uri)

    def close(self) -> None:
        """Reads what is left, which a reader may leave where its last row has ended, so that the hash covers it."""
        if not self.closed:
            self._before = b""
            while self.read(_CHUNK):
                pass
            self._file.close()
        super().close()
