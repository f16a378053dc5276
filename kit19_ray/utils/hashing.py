"""Hashes that decide everything random: they come from ids and the seed, never from order."""

from __future__ import annotations

from hashlib import blake2b

_SEP = "\x1f"  # unit separator: no field holds one, readers drop control characters


def hash64(*parts: str | int) -> int:
    """A uniform 64-bit integer from the parts."""
    return int.from_bytes(blake2b(_SEP.join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def hex_id(*parts: str) -> str:
    """A 96-bit name, as 24 hex digits, from the parts."""
    return blake2b(_SEP.join(parts).encode(), digest_size=12).hexdigest()


def fraction(*parts: str | int) -> float:
    """A uniform number in [0, 1) from the parts."""
    return hash64(*parts) / 2**64
