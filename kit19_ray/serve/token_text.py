"""The text of each token, and where it starts: what OpenAI's `logprobs` lists beside the numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# What a decoder gives for the bytes of a character that is not complete yet.
INCOMPLETE = "\ufffd"


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """One text a token, which together are the decoded text.

    A Korean character may be spread over several byte-level tokens: the last of them has the character, the others
    have the empty string.
    """
    texts: list[str] = []
    start, done = 0, 0  # ids[start:done] is the context that decides about leading spaces
    for end in range(1, len(ids) + 1):
        known = decode(tokenizer, ids[start:done])
        text = decode(tokenizer, ids[start:end])
        if end < len(ids) and text.endswith(INCOMPLETE):
            texts.append("")
            continue
        texts.append(text[len(known) :])
        start, done = done, end
    return texts


def offsets(texts: Sequence[str], start: int = 0) -> list[int]:
    """Where each token's text starts, in characters; `start` is the first one's."""
    places = []
    for text in texts:
        places.append(start)
        start += len(text)
    return places


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of `ids`, special tokens included and no spaces tidied."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def named(tokenizer: Any, logprobs: Mapping[int, float]) -> list[tuple[int, str, float]]:
    """(token id, name, log-probability), the likeliest first; a name is the token's text.

    A token that is part of a character, or whose text another one already has, is called `token_id:<id>`: a client
    that looks for the maximum must find every value.
    """
    out: list[tuple[int, str, float]] = []
    names: set[str] = set()
    for token, value in sorted(logprobs.items(), key=lambda pair: (-pair[1], pair[0])):
        text = decode(tokenizer, [token])
        name = f"token_id:{token}" if INCOMPLETE in text or text in names else text
        names.add(name)
        out.append((token, name, value))
    return out


class TokenBytes:
    """The bytes of single tokens: half a Korean character has some though it has no text.

    Args:
        tokenizer: a Hugging Face one. Byte-level BPE spells bytes as letters, sentencepiece's fallback as `<0xEB>`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = set(getattr(tokenizer, "all_special_ids", ()))
        self._letters = _byte_letters() if _is_byte_level(tokenizer) else None

    def of(self, token: int) -> bytes:
        """What the token puts into the text, as UTF-8 or a part of it."""
        word = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(word, str):
            return decode(self._tokenizer, [token]).encode()
        if token not in self._special:
            if self._letters is not None and all(letter in self._letters for letter in word):
                return bytes(self._letters[letter] for letter in word)
            if _FALLBACK.fullmatch(word):
                return bytes([int(word[3:5], 16)])
            if self._letters is None and "\u2581" in word:
                return word.replace("\u2581", " ").encode()
        return decode(self._tokenizer, [token]).encode()


_FALLBACK = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    return any(part.get("type") == "ByteLevel" for part in (decoder, *decoder.get("decoders", ())))


def _byte_letters() -> dict[str, int]:
    """GPT-2's letters of the 256 bytes: printable ones stand for themselves, the others for U+0100 and up."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
