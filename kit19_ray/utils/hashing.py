"""Hashes: what decides everything random comes from ids and the seed, never from order; files have SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from hashlib import blake2b
from typing import Protocol

_SEP = "\x1f"  # unit separator: no field holds one, readers drop control characters
_CHUNK = 1 << 20  # bytes


class Readable(Protocol):
    """Anything bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def sha256_stream(stream: Readable, progress: Callable[[int], None] | None = None) -> tuple[str, int]:
    """SHA-256 (hex) and number of the bytes left in `stream`.

    Args:
        progress: told the number of bytes of each piece.
    """
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if progress is not None:
            progress(len(chunk))
    return digest.hexdigest(), size


def hash64(*parts: str | int) -> int:
    """A uniform 64-bit integer from the parts."""
    return int.from_bytes(blake2b(_SEP.join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def hex_id(*parts: str) -> str:
    """A 96-bit name, as 24 hex digits, from the parts."""
    return blake2b(_SEP.join(parts).encode(), digest_size=12).hexdigest()


def fraction(*parts: str | int) -> float:
    """A uniform number in [0, 1) from the parts."""
    return hash64(*parts) / 2**64
