"""Example -> tokens and labels; a long input is cut so that instruction and answer stay whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kit19_ray.artifacts.schemas import TEXT, ExampleTexts
from kit19_ray.data.packing import TokenRow
from kit19_ray.lm.prompts import Message, Prompt, PromptFields, encode_prompts, fit_prompt
from kit19_ray.lm.text_encoder import TextEncoder


@dataclass(frozen=True)
class Encoder:
    """Turns example rows into token rows of at most `seq_len` tokens."""

    encoder: TextEncoder
    prompt: Prompt
    eos_id: int
    seq_len: int

    def encode(self, rows: Sequence[ExampleTexts]) -> list[tuple[TokenRow | None, bool]]:
        """For each example its tokens, or None when prompt and answer cannot fit; and whether some of it was cut.

        Tokens are `encode(prompt) + encode(output) + [eos]`; the output and the eos are learned, the prompt is not.
        Of a conversation every answer is learned, and its last exchanges are left out as long as it does not fit. A
        plain text is learned whole, and may be longer than `seq_len`: it is for who packs it to cut it.
        """
        usual = iter(self._usual([r for r in rows if not r.get("messages") and r.get("kind") != TEXT]))
        found = []
        for row in rows:
            messages = row.get("messages")
            if row.get("kind") == TEXT:
                found.append(self._text(row["output"]))
            else:
                found.append(self._conversation(json.loads(messages)) if messages else next(usual))
        return found

    def _usual(self, rows: Sequence[ExampleTexts]) -> list[tuple[TokenRow | None, bool]]:
        prompts = self._batch([self.prompt.render(r["instruction"], r["input"]) for r in rows])
        texts = list(dict.fromkeys(r["output"] for r in rows))  # a label's sentence stands in many rows
        answers = dict(zip(texts, self._answers(texts), strict=True))
        return [self._row(r, p, answers[r["output"]]) for r, p in zip(rows, prompts, strict=True)]

    def _answers(self, texts: list[str]) -> list[list[int]]:
        """Tokens of answers with what ends them."""
        found = self._batch([self.prompt.answer(text) for text in texts])
        return [[*ids, self.eos_id] for ids in found] if self.prompt.end is None else found

    def _text(self, text: str) -> tuple[TokenRow | None, bool]:
        ids = [*self.encoder.text([text])[0], self.eos_id]
        return TokenRow(_int32(ids), 1), False  # nothing stands before the first token to tell it by

    def _conversation(self, messages: Sequence[Message]) -> tuple[TokenRow | None, bool]:
        segments = self.prompt.segments(messages)
        runs: list[list[int]] = []
        for text, learned in segments:
            ends = learned and self.prompt.end is None  # a template has its own end in the text
            runs.append([*self._ids(text), *([self.eos_id] if ends else [])])
        whole = len(runs)
        while runs and sum(map(len, runs)) > self.seq_len:
            runs = runs[:-2]
        if not runs or not runs[0]:
            return None, True
        lengths = [len(run) for run in runs]
        ids = _int32([token for run in runs for token in run])
        return TokenRow(ids, lengths[0], tuple(lengths[1:]) if len(lengths) > 2 else ()), len(runs) < whole

    def _batch(self, texts: list[str]) -> list[list[int]]:
        return encode_prompts(self.encoder, self.prompt, texts)

    def _row(self, row: ExampleTexts, prompt: list[int], answer: list[int]) -> tuple[TokenRow | None, bool]:
        room = self.seq_len - len(answer)
        if prompt and len(prompt) <= room:
            return TokenRow(_int32(prompt + answer), len(prompt)), False
        fields: PromptFields = {"instruction": row["instruction"], "input": row["input"]}
        ids = fit_prompt(self._ids, self.prompt, fields, room, prompt)
        return (TokenRow(_int32(ids + answer), len(ids)) if ids else None), len(prompt) > room

    def _ids(self, text: str) -> list[int]:
        return self._batch([text])[0]


def _int32(ids: list[int]) -> npt.NDArray[np.int32]:
    """The ids; `np.array` would ask each for its type."""
    return np.frombuffer(struct.pack(f"{len(ids)}i", *ids), np.int32)
