"""Letters of a text, and hashes of its runs of five: what near duplicates and leaks are found by.

    text       "영화가, 정말 좋다!"  ->  letters  "영화가정말좋다"
    n-grams    영화가정말  화가정말좋  가정말좋다      len(letters) - 4 of them

Spaces and punctuation are gone, so a text that was spaced or punctuated anew has the same n-grams. A letter that is
drawn out ("ㅋㅋㅋㅋㅋ") stands twice: else all who laugh say the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

SIZE = 5  # letters of an n-gram; Korean packs a syllable into one letter, so this is a word or two
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_POWERS = np.array([pow(0x9E3779B97F4A7C15, SIZE - 1 - i, 2**64) for i in range(SIZE)], np.uint64)


def normalize_letters(text: str) -> str:
    """`text` in NFKC, without case, spaces, punctuation, symbols and drawn-out letters; may be empty."""
    return _DRAWN_OUT.sub(r"\1\1", "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold())))


def hashes(text: str) -> UInt64:
    """Hashes of the n-grams of `letters`, in order: uint64 `[max(1, len - 4)]`; a shorter text is one n-gram."""
    if len(text) < SIZE:
        # Padded with what is no letter, so that it equals no n-gram of a longer text.
        text = text.ljust(SIZE, "\0")
    return _rolling(np.frombuffer(text.encode("utf-32-le"), np.uint32))


def ngram_hashes(texts: Sequence[str]) -> tuple[UInt64, Int64]:
    """The n-grams of many texts at once: hashes uint64 `[n]` and the text each is of, int64 `[n]`.

    Texts shorter than an n-gram have none here.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    if len(codes) < SIZE:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    owner = np.repeat(np.arange(len(texts)), [len(t) for t in texts])
    # All texts are hashed as one string, which is what makes it fast; windows over a border belong to nobody.
    whole = owner[: len(codes) - SIZE + 1] == owner[SIZE - 1 :]  # not across the end of a text
    return _rolling(codes)[whole], owner[: len(whole)][whole]


def _rolling(codes: npt.NDArray[np.uint32]) -> UInt64:
    """A polynomial hash of every window, mixed so that its low bits are as good as its high ones."""
    length = len(codes) - SIZE + 1
    total = np.zeros(length, np.uint64)
    with np.errstate(over="ignore"):
        for i in range(SIZE):
            # + 1: else the padding, whose code is 0, would add nothing.
            total += (codes[i : i + length].astype(np.uint64) + np.uint64(1)) * _POWERS[i]
        # A polynomial's low bits hang on the letters' low bits alone, and MinHash looks at the low 32.
        total ^= total >> np.uint64(29)
        total *= _MULTIPLIER
        total ^= total >> np.uint64(32)
    return total
