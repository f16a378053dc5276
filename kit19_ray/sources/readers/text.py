"""One normal form for all text: NFC, no invisible characters, plain spaces, stripped."""

from __future__ import annotations

import re
import unicodedata

# Tab and line feed stay: code cells and petitions need them. A separator of lines or paragraphs is a line feed.
_DROPPED = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x200B, 0xFEFF]
_TABLE: dict[int, str | None] = dict.fromkeys(_DROPPED) | {
    0xA0: " ",
    0x2028: "\n",
    0x2029: "\n",
}
_ODD = re.compile("[" + "".join(map(re.escape, map(chr, _TABLE))) + "]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """NFC; U+00A0 becomes a space; U+200B, U+FEFF and control characters but tab and line feed go; stripped.

    Idempotent. Most text has nothing to change, which two searches in C find out.
    """
    if _ODD.search(text):
        text = text.replace("\r\n", "\n").translate(_TABLE)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return text.strip()


def has_surrogate(text: str) -> bool:
    """Whether `text` holds half a surrogate pair, which JSON escapes can spell and UTF-8 cannot."""
    return _SURROGATE.search(text) is not None
