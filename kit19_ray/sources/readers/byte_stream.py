"""What lies before a reader: compressed files are unpacked, other encodings become UTF-8, old Mac line ends become LF.

    bytes --gzip, zstd--> bytes --BOM or the encoding that was named--> UTF-8 --CR alone--> LF

A reader sees UTF-8 only. A byte that is none in its encoding stays a byte that is none in UTF-8, so it costs its row
and no other. What cannot be read at all, such as a zip archive under a name that ends in .csv, is one error.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import BinaryIO, cast

import pyarrow as pa

from kit19_ray.errors import SourceError

_HEAD = 1 << 16  # bytes looked at
_CHUNK = 1 << 20
# Of text gzip makes a tenth; a thousandth is a file made to fill a disk.
_MOST_RATIO, _FREE = 250, 64 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {
    b"PK\x03\x04": "a zip archive (or an Excel file)",
    b"PAR1": "a Parquet file",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"%PDF": "a PDF",
    b"\x00\x05\x16\x07": "a Mac's AppleDouble file, which holds no data",
    b"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches the file itself",
}
# UTF-32 before UTF-16, whose mark is its beginning.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class _Stage(io.RawIOBase):
    """A stream made of another: `take` gives at most so many bytes, none at the end."""

    def __init__(self) -> None:
        self._ahead = b""

    def readable(self) -> bool:
        return True

    def take(self, size: int) -> bytes:
        raise NotImplementedError

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's name is private
        data = self._ahead or self.take(len(buffer))
        data, self._ahead = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class _Peeked(_Stage):
    """A stream whose first bytes were looked at."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__()
        self._stream, self.head = stream, b""
        while len(self.head) < size and (chunk := stream.read(size - len(self.head))):
            self.head += chunk
        self._ahead = self.head

    def take(self, size: int) -> bytes:
        return self._stream.read(size)


class _Unpacked(_Stage):
    """A compressed stream's content, as long as it is not far larger than a text's would be."""

    def __init__(self, packed: _Peeked, name: str, kind: str, size: int) -> None:
        super().__init__()
        self._name, self._most = name, max(_FREE, _MOST_RATIO * size)
        self._stream = gzip.GzipFile(fileobj=cast(BinaryIO, packed)) if kind == "gzip" else _zstd(packed)
        self._read = 0

    def take(self, size: int) -> bytes:
        try:
            data = bytes(self._stream.read(size))
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"{self._name}: it cannot be unpacked: {str(error)[:200]}") from error
        self._read += len(data)
        if self._read > self._most:
            raise SourceError(f"{self._name}: it unpacks to more than {_MOST_RATIO} times its size: not read on")
        return data


def _zstd(packed: _Peeked) -> pa.NativeFile:
    return pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), "zstd")


def _as_surrogates(error: UnicodeError) -> tuple[str, int]:
    """Each byte that is no text as a lone surrogate. `surrogateescape` refuses bytes below 128, as half a UTF-16 unit
    at the end of a file may be one."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("kit19-surrogates", _as_surrogates)


class _Recoded(_Stage):
    """A stream of another encoding as UTF-8."""

    def __init__(self, stream: io.RawIOBase, encoding: str) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("kit19-surrogates")

    def take(self, size: int) -> bytes:
        while True:
            chunk = self._stream.read(size)
            text = self._decoder.decode(chunk or b"", final=not chunk)
            if text or not chunk:
                return text.encode("utf-8", "surrogatepass")  # what was no text is no UTF-8 either


class _OldMac(_Stage):
    """A stream whose lines end in CR alone."""

    def __init__(self, stream: io.RawIOBase) -> None:
        super().__init__()
        self._stream = stream

    def take(self, size: int) -> bytes:
        return (self._stream.read(size) or b"").replace(b"\r", b"\n")


def utf8(stream: BinaryIO, name: str, size: int, encoding: str | None = None) -> BinaryIO:
    """The stream as UTF-8 text.

    Args:
        name: the file's, for messages.
        size: its bytes.
        encoding: what it is in, as Python names it; None means UTF-8, or what a byte order mark says.

    Raises:
        SourceError: it is no text, here or while it is read.
    """
    found: io.RawIOBase = (peeked := _Peeked(stream, _HEAD))
    if peeked.head.startswith((_GZIP, _ZSTD)):
        kind = "gzip" if peeked.head.startswith(_GZIP) else "zstd"
        found = (peeked := _Peeked(cast(BinaryIO, _Unpacked(peeked, name, kind, size)), _HEAD))
    for magic, what in _OTHERS.items():
        if peeked.head.startswith(magic):
            raise SourceError(f"{name}: it is {what}; a reader takes text, plain or packed with gzip or zstd")
    mark = next((e for mark, e in _MARKS.items() if peeked.head.startswith(mark)), None)
    encoding = mark or encoding
    if encoding is not None and codecs.lookup(encoding).name != "utf-8":
        found = (peeked := _Peeked(cast(BinaryIO, _Recoded(found, encoding)), _HEAD))
    if b"\r" in peeked.head and b"\n" not in peeked.head and not _ends_in_cr_only(peeked.head):
        found = _OldMac(found)
    return io.BufferedReader(found, _CHUNK)


def _ends_in_cr_only(head: bytes) -> bool:
    """Whether the only CR is the last byte seen: its LF may come next."""
    return head.count(b"\r") == 1 and head.endswith(b"\r")


def likely_encoding(data: bytes) -> str | None:
    """The Korean encoding that bytes which are not UTF-8 are whole text in; None where there is no such."""
    for encoding in ("cp949", "johab", "utf-16-le"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        hangul = sum("가" <= c <= "힣" for c in text)
        if hangul and hangul >= 0.3 * sum(not c.isascii() for c in text):
            return encoding
    return None
