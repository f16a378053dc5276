"""A few validation prompts answered while training: what a loss does not show.

Greedy, and by whole forward passes without a cache: every rank must take part, whatever ZeRO has done to the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.artifacts.schemas import IGNORE

if TYPE_CHECKING:  # the driver reads this module for its names and loads no torch
    from kit19_ray.train.engine import TrainEngine

NAME = "samples.jsonl"
MAX_TOKENS = 24
_LONGEST_PROMPT = 512  # tokens; a longer one is another example's turn


@dataclass(frozen=True)
class SamplePrompt:
    """The first example of a validation row: the tokens before its answer, and the answer's."""

    tokens: list[int]
    expected: list[int]


def prompts(split: PackedSplit, number: int) -> list[SamplePrompt]:
    """The first `number` of the split that have a prompt of at most 512 tokens, one a row."""
    out: list[SamplePrompt] = []
    for row in range(len(split)):
        if len(out) == number:
            break
        columns = {name: column[0] for name, column in split.rows([row]).items()}
        ends = np.flatnonzero(columns["position_ids"][1:] == 0)
        end = int(ends[0]) + 1 if len(ends) else split.seq_len
        learned = np.flatnonzero(columns["labels"][:end] != IGNORE)
        if not len(learned) or not 0 < learned[0] <= _LONGEST_PROMPT:
            continue
        ids = columns["input_ids"][:end].tolist()
        out.append(SamplePrompt(ids[: learned[0]], ids[learned[0] : learned[-1] + 1]))
    return out


def answer(engine: TrainEngine, prompt: SamplePrompt, eos_token_id: int) -> list[int]:
    """The tokens the model goes on with, at most MAX_TOKENS; all ranks must call it, and get the same."""
    tokens = list(prompt.tokens)
    for _ in range(MAX_TOKENS):
        following = engine.next_token(tokens)
        if following == eos_token_id:
            break
        tokens.append(following)
    return tokens[len(prompt.tokens) :]
