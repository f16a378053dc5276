"""Example -> tokens and labels; a long input is cut so that instruction and answer stay whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kit19_ray.data.packing import TokenRow
from kit19_ray.lm.prompts import PromptFormat

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


@dataclass(frozen=True)
class Encoder:
    """Turns example rows into token rows of at most `seq_len` tokens."""

    tokenizer: Tokenizer
    prompt: PromptFormat
    eos_id: int
    seq_len: int

    def encode(self, rows: Sequence[dict[str, Any]]) -> list[tuple[TokenRow | None, bool]]:
        """For each example its tokens, or None when prompt and answer cannot fit; and whether its input was cut.

        Tokens are `encode(prompt) + encode(output) + [eos]`; the output and the eos are learned, the prompt is not.
        """
        prompts = self._batch([self.prompt.render(r["instruction"], r["input"]) for r in rows])
        texts = list(dict.fromkeys(r["output"] for r in rows))  # a label's sentence stands in many rows
        answers = dict(zip(texts, ([*found.ids, self.eos_id] for found in self._batch(texts)), strict=True))
        return [self._row(r, p, answers[r["output"]]) for r, p in zip(rows, prompts, strict=True)]

    def _batch(self, texts: list[str]) -> list[Encoding]:
        return list(self.tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    def _row(self, row: dict[str, Any], prompt: Encoding, answer: list[int]) -> tuple[TokenRow | None, bool]:
        room = self.seq_len - len(answer)
        cut = len(prompt) > room  # `Encoding.ids` makes a new list each time
        ids: list[int] | None = self._cut(row, prompt, room) if cut else prompt.ids
        if ids is None or not ids:
            return None, cut
        return TokenRow(np.array(ids + answer, np.int32), len(ids)), cut

    def _cut(self, row: dict[str, Any], prompt: Encoding, room: int) -> list[int] | None:
        """The prompt with just so much of the input's end left out that it has at most `room` tokens."""
        text: str = row["input"]
        while text and len(prompt.ids) > room:
            # A cut moves the token boundaries a little, so this takes a second turn at times.
            per_token = max(1, len(text) // max(1, len(prompt.ids)))
            text = text[: max(0, len(text) - max(1, (len(prompt.ids) - room) * per_token))].rstrip()
            if text:
                prompt = self.tokenizer.encode(self.prompt.render(row["instruction"], text), add_special_tokens=False)
        return list(prompt.ids) if text and len(prompt.ids) <= room else None
