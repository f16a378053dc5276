"""Text to token ids, one way for training, evaluation and serving: what somebody wrote is text.

A library's tokenizer makes of `<|endoftext|>` in a review the id that ends a text, and obeys the truncation and padding
that a published file may carry: answers would be cut, and padding learned. Here neither happens. Only what a chat
template itself writes becomes ids:

    text        every character is one of a text
    templated   what a template made of `quoted` contents: the template's markers are ids, those in the contents are not
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

QUOTE = "\ufdd0"  # a noncharacter: no special token begins with the character behind it


class TextEncoder:
    """Encodes for one tokenizer, which stays as it is; threads may share it.

    Args:
        tokenizer: transformers' or tokenizers' own. One without a fast implementation is asked with its own options.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        own = hasattr(tokenizer, "encode_special_tokens")  # tokenizers' own
        backend: Tokenizer | None = tokenizer if own else getattr(tokenizer, "backend_tokenizer", None)
        self._backend = backend
        self._text: Tokenizer | None = None if backend is None else _copy(backend, as_text=True)
        self._special = _special_tokens(tokenizer, backend)
        pattern = "|".join(re.escape(token) for token in sorted(self._special, key=len, reverse=True)) or "(?!)"
        self._quotable = re.compile(f"(?={QUOTE}|{pattern})")
        self._parts = re.compile(f"{QUOTE}(?P<quoted>.)|(?P<special>{pattern})", re.DOTALL)
        # Unigram and word models look a whole word up, so they find a special token's id without being told to.
        never = {number for token, number in self._special.items() if token != _unknown(tokenizer, backend)}
        self._never = never if any(never & set(self._as_text([token])[0]) for token in self._special) else set()

    def text(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[list[int]]:
        """The ids of each text, special tokens in it being letters.

        Args:
            add_special_tokens: with what the tokenizer puts round every text, such as a beginning-of-text token.
        """
        found = self._as_text(texts, add_special_tokens)
        if self._never:
            before, behind = self._affixes if add_special_tokens else ([], [])
            for place, ids in enumerate(found):
                inner = ids[len(before) : len(ids) - len(behind)]
                if not self._never.isdisjoint(inner):
                    found[place] = [*before, *self._in_pieces(texts[place]), *behind]
        return found

    def templated(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[list[int]]:
        """The ids of what a chat template made of quoted contents."""
        plain = [text for text in texts if QUOTE not in text]
        whole = iter(self._as_markup(plain, add_special_tokens) if plain else [])
        return [self._mixed(text, add_special_tokens) if QUOTE in text else next(whole) for text in texts]

    def quoted(self, content: str) -> str:
        """The content for a chat template, so that nothing in it becomes a marker."""
        return self._quotable.sub(QUOTE, content)

    @staticmethod
    def shown(text: str) -> str:
        """What was templated, as it reads: without the quotes."""
        return re.sub(f"{QUOTE}(.)", r"\1", text, flags=re.DOTALL)

    @cached_property
    def _markup(self) -> Tokenizer | None:
        return None if self._backend is None else _copy(self._backend, as_text=False)

    @cached_property
    def _affixes(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and behind every text."""
        (plain,), (whole,) = self._as_text(["a"]), self._as_text(["a"], True)
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start], whole[start + len(plain) :]
        return [], []

    def _as_text(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[list[int]]:
        if self._text is None:
            return self._slow(texts, add_special_tokens, split_special_tokens=True)
        found = self._text.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in found]  # a list made for each call

    def _as_markup(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        if self._markup is None:
            return self._slow(texts, add_special_tokens)
        found = self._markup.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in found]  # a list made for each call

    def _slow(self, texts: Sequence[str], add_special_tokens: bool, **options: bool) -> list[list[int]]:
        if not texts:
            return []
        found = self._tokenizer(list(texts), add_special_tokens=add_special_tokens, **options)["input_ids"]
        return [list(ids) for ids in found]

    def _mixed(self, text: str, add_special_tokens: bool) -> list[int]:
        """Markers as ids, and what stands between them as text."""
        before, behind = self._affixes if add_special_tokens else ([], [])
        ids, run, done = list(before), "", 0
        for found in self._parts.finditer(text):
            run += text[done : found.start()] + (found["quoted"] or "")
            done = found.end()
            if found["special"]:
                ids += [*self.text([run])[0], self._special[found["special"]]]
                run = ""
        run += text[done:]
        return [*ids, *(self.text([run])[0] if run else []), *behind]

    def _in_pieces(self, text: str) -> list[int]:
        """Cut behind the first character of each special token's text, so that no piece is one."""
        starts = [found.start() + 1 for found in self._quotable.finditer(text)]
        edges = [0, *starts, len(text)]
        pieces = [text[low:high] for low, high in itertools.pairwise(edges) if low < high]
        return [token for ids in self._as_text(pieces) for token in ids]


def _copy(backend: Tokenizer, as_text: bool) -> Tokenizer:
    """The library switches these on an object that others use meanwhile, so each way has an object of its own."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(backend.to_str())
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = as_text
    return made


def _special_tokens(tokenizer: Any, backend: Tokenizer | None) -> dict[str, int]:
    if backend is not None:
        return {token.content: number for number, token in backend.get_added_tokens_decoder().items() if token.special}
    names = getattr(tokenizer, "all_special_tokens", ())
    return dict(zip(names, getattr(tokenizer, "all_special_ids", ()), strict=True))


def _unknown(tokenizer: Any, backend: Tokenizer | None) -> str | None:
    """The token of what has none, which any text may become."""
    found = getattr(tokenizer, "unk_token", None) or getattr(getattr(backend, "model", None), "unk_token", None)
    return None if found is None else str(found)
