"""Physical lines of a byte stream, split on LF alone.

`str.splitlines()` also breaks at U+001C, U+0085 and U+2028, which occur inside sentences of these files.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

CHUNK = 1 << 20  # bytes read at once
MAX_LINE = 16 << 20  # bytes; longer ones are cut, so that a file without line ends cannot fill the memory


def physical_lines(stream: BinaryIO, max_line: int = MAX_LINE) -> Iterator[bytes | None]:
    """Each line without its LF and without one trailing CR; a leading UTF-8 BOM is dropped.

    The empty piece after a final newline is not a line. A line of more than `max_line` bytes comes out as None.
    """
    pending: list[bytes] = []
    held = 0
    too_long = False
    first = True
    while chunk := stream.read(CHUNK):
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            if pending:
                pending.append(piece)
                piece = b"".join(pending)
                pending.clear()
                held = 0
            if first:
                piece, first = piece.removeprefix(codecs.BOM_UTF8), False
            if too_long or len(piece) > max_line:
                too_long = False
                yield None
            else:
                yield piece[:-1] if piece.endswith(b"\r") else piece
        if rest and not too_long:
            pending.append(rest)
            held += len(rest)
            if held > max_line:
                pending.clear()
                held, too_long, first = 0, True, False
    if too_long:
        yield None
    elif pending:
        piece = b"".join(pending)
        if first:
            piece = piece.removeprefix(codecs.BOM_UTF8)
        if piece:  # a file may hold nothing but the mark
            yield piece[:-1] if piece.endswith(b"\r") else piece
