"""One normal form for all text: NFC, no invisible characters, plain spaces, stripped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Tab and line feed stay: code cells and petitions need them. A separator of lines or paragraphs is a line feed, the
# other breaks are spaces: dropped, they would glue two words together.
_CONTROLS = [*range(0x09), *range(0x0E, 0x20), *range(0x7F, 0x85), *range(0x86, 0xA0)]
_BREAKS = [0x0B, 0x0C, 0x0D, 0x85]
# What no font shows: Unicode's Default_Ignorable_Code_Point, but for the joiner and the variation selectors, of which
# emoji are made. Two texts that differ by them alone look the same, and a text of them alone looks empty.
_INVISIBLE = [
    0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x200D), 0x200E,
    0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, 0xFEFF, 0xFFA0, *range(0xFFF0, 0xFFF9),
    *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE0100),
]  # fmt: skip
_TABLE: dict[int, str | None] = {
    **dict.fromkeys([*_CONTROLS, *_INVISIBLE]),
    **dict.fromkeys(_BREAKS, " "),
    0xA0: " ",
    0x2028: "\n",
    0x2029: "\n",
}
# A joiner or a selector joins and selects pictures; beside anything else it is invisible too.
_PICTURE = "\U0001f000-\U0001faff\u2190-\u2bff\u00a9\u00ae\u203c\u2049\u2122\u2139\u3030\u303d\u3297\u3299#*0-9"
_STRAY = re.compile(f"(?<![{_PICTURE}\ufe0f])[\u200d\ufe00-\ufe0f]+|\u200d+(?![{_PICTURE}])")
_JOINS = [0x200D, *range(0xFE00, 0xFE10)]


def _ranges(codes: Iterable[int]) -> str:
    """A character class as ranges: `re` compares each letter with every single one it is given beyond U+FFFF."""
    found: list[list[int]] = []
    for code in sorted(codes):
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in found)


_ODD = re.compile(f"[{_ranges([*_TABLE, *_JOINS])}]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """NFC; breaks within a line and U+00A0 become a space; invisible and control characters go; stripped.

    Idempotent. Most text has nothing to change, which one search in C finds out.
    """
    if _ODD.search(text):
        text = _STRAY.sub("", text.replace("\r\n", "\n").translate(_TABLE))
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return text.strip()


def composed(name: str) -> str:
    """A column's, a key's or a file's name as it is compared: NFC, without a byte order mark and spaces around it.

    A Mac writes 제목 decomposed, in six letters that look like two.
    """
    return unicodedata.normalize("NFC", name).strip("\ufeff \t\u00a0")


def has_surrogate(text: str) -> bool:
    """Whether `text` holds half a surrogate pair, which JSON escapes can spell and UTF-8 cannot."""
    return _SURROGATE.search(text) is not None
