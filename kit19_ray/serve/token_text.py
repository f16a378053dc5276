"""The text of each token, and where it starts: what OpenAI's `logprobs` lists beside the numbers."""

from __future__ import annotations

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


def named(tokenizer: Any, logprobs: Mapping[int, float]) -> dict[str, float]:
    """Log-probabilities by the token's text, the likeliest first.

    A token that is part of a character, or whose text another one already has, is called `token_id:<id>`: a client
    that looks for the maximum must find every value.
    """
    out: dict[str, float] = {}
    for token, value in sorted(logprobs.items(), key=lambda pair: (-pair[1], pair[0])):
        text = decode(tokenizer, [token])
        out[f"token_id:{token}" if INCOMPLETE in text or text in out else text] = value
    return out
