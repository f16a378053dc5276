"""What a template may leave behind by mistake: an unfilled brace, two particles."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A prompt that asks for the label and nothing else: "하나만 골라", "답만 쓰시오", "O나 X로만", "한 단어로만".
ASKS_BARE = re.compile(r"만 (?:답|쓰|써|적|고르|골라|표시)|(?:으?로|\}\})만 (?:답|나타|요약)")
_LEFT_BEHIND = re.compile(
    r"\{\{|\}\}|\{%|%\}|\{#"
    r"|은는|는은|을를|를을|으로로|\(으\)로|\(이\)|[은을이과]\([는를가와]\)|[은는이가을를와과]/[은는이가을를와과]"
    r"|입니다입니다|이다다"
)


def left_behind(text: str, fields: Iterable[str] = ()) -> str | None:
    """The first such mistake in a rendered text, unless a field has those letters itself."""
    own = "\n".join(fields)
    return next((found[0] for found in _LEFT_BEHIND.finditer(text) if found[0] not in own), None)
