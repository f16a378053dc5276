"""A completion as it grows: which tokens' text can be sent already, so that nothing sent has to be taken back.

Two things are held back: the bytes of a character that is not complete, and text that may be the beginning of a stop
sequence. Tokens are let go whole, so what was sent is always a beginning of the finished text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kit19_ray.serve import token_text


class Detokenizer:
    """The texts of one completion's tokens, in the order they are decoded.

    Args:
        tokenizer: that of the model.
        stop: texts that end the completion.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._start = self._known = 0  # ids[start:known] is the context that decides about leading spaces
        self._held: list[str] = []

    def add(self, token: int) -> str:
        """The text that this token lets go, often of earlier tokens too; empty while something is held back."""
        self._ids.append(token)
        texts = token_text.decode(self._tokenizer, self._ids[self._start :])
        if texts.endswith(token_text.INCOMPLETE):
            self._held.append("")
            return ""
        before = token_text.decode(self._tokenizer, self._ids[self._start : self._known])
        self._held.append(texts[len(before) :])
        self._start, self._known = self._known, len(self._ids)
        text = "".join(self._held)
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        free, length = 0, 0
        for place, piece in enumerate(self._held, 1):
            length += len(piece)
            if length > len(text) - keep:
                break
            free = place
        released = "".join(self._held[:free])
        self._held = self._held[free:]
        return released


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text`, from the first that could begin `stop`, may become part of it.

    A whole `stop` anywhere counts from where it begins: the completion is about to be cut there.
    """
    found = text.find(stop)
    if found >= 0:
        return len(text) - found
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
