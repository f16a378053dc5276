"""A causal LM with its tokenizer, and what must be known of the two to run it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

DEFAULT_CONTEXT = 2048  # tokens, for a model that does not say; as lm-evaluation-harness has it
_UNLIMITED = 10**20  # a tokenizer without a limit says 10**30


class LoadedModel:
    """A model and its tokenizer on one device.

    Args:
        model: a Hugging Face causal LM, on the device it is to run on; it is put into evaluation mode.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.device: torch.device = model.device
        self.max_length = context_length(model.config, tokenizer)
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self.accepts = frozenset(inspect.signature(model.forward).parameters)
        self.eos_ids = _eos_ids(model, tokenizer)

    def encode(self, text: str) -> list[int]:
        """The tokens of a part of a prompt: no special token is added, as in training."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones included, no spaces tidied."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def context_length(config: Any, tokenizer: Any) -> int:
    """Tokens the model can read: what lm-evaluation-harness takes it to be."""
    text = getattr(config, "text_config", None) or config
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(text, name, None)
        if value is not None:
            return int(value)
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and limit < _UNLIMITED else DEFAULT_CONTEXT


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a text: the generation config's, else the tokenizer's."""
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, (list, tuple)) else [found])
