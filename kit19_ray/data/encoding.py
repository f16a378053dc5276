"""Example -> tokens and labels; a long input is cut so that instruction and answer stay whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kit19_ray.data.packing import TokenRow
from kit19_ray.lm.prompts import PromptFields, PromptFormat, fit_prompt

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
        cut = len(prompt) > room
        # `Encoding.ids` makes a new list each time it is asked.
        fields: PromptFields = {"instruction": row["instruction"], "input": row["input"]}
        ids = fit_prompt(self._ids, self.prompt, fields, room, prompt.ids)
        return (TokenRow(np.array(ids + answer, np.int32), len(ids)) if ids else None), cut

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids
