"""A causal LM with its tokenizer, and what must be known of the two to run it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from kit19_ray.lm import few_rows
from kit19_ray.lm.pretrained import positions
from kit19_ray.lm.text_encoder import TextEncoder
from kit19_ray.utils import machine

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 2048  # tokens, for a model that does not say; as lm-evaluation-harness has it
_PROBE = 24  # tokens that decoding over our cache is tried with
_UNLIMITED = 10**20  # a tokenizer without a limit says 10**30


ModelInputs = dict[str, Any]
"""Keyword arguments of a model's forward pass: tensors and flags, of which each architecture takes its own."""


class LoadedModel:
    """A model and its tokenizer on one device.

    Args:
        model: a Hugging Face causal LM, on the device it is to run on; it is put into evaluation mode.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        few_rows.use(model)
        self.tokenizer = tokenizer
        self.device: torch.device = model.device
        self.max_length = context_length(model.config, tokenizer)
        self.vocab_size = int(model.config.get_text_config().vocab_size)
        self.accepts = frozenset(inspect.signature(model.forward).parameters)
        self.eos_ids = _eos_ids(model, tokenizer)

    @property
    def cache_token_bytes(self) -> int:
        """Bytes of the keys and values of one token: 2 x layers x key-value heads x head size x bytes of a number."""
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_attention_heads", 1)
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        key_value_heads = getattr(config, "num_key_value_heads", None) or heads
        return int(2 * config.num_hidden_layers * key_value_heads * size * self.model.dtype.itemsize)

    def free_memory(self) -> int:
        """Bytes that are free where the model is."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0])
        return machine.free_memory()

    @cached_property
    @torch.inference_mode()
    def takes_slots(self) -> bool:
        """Whether the model decodes over our cache (`kv_cache.SlotCache`), many sequences at a time.

        Found out by trying: two sequences of different lengths, read in pieces side by side, must get the logits that
        each gets alone. A model with another kind of state (recurrent layers, chunked attention) keeps its own cache
        and is decoded one sequence at a time.
        """
        from kit19_ray.lm.kv_cache import SlotCache, Step, attention_masks

        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        if not {"position_ids", "past_key_values"} <= self.accepts or kinds - {"full_attention", "sliding_attention"}:
            return False
        size = min(_PROBE, self.max_length)
        whole = torch.arange(1, size + 1).remainder(self.vocab_size)[None].to(self.device)
        lengths = (size, max(2, size // 2))
        alone = [self.model(input_ids=whole[:, :length], use_cache=False).logits[0, -1] for length in lengths]
        cache = SlotCache(int(config.num_hidden_layers))
        cache.reserve(2, size, 2 * size)
        try:
            for starts, counts in (((0, 0), [n - 1 for n in lengths]), ([n - 1 for n in lengths], (1, 1))):
                step = cache.step = Step(0, starts, counts)
                rows = [whole[0, start : start + max(counts)] for start in starts]
                positions = torch.tensor(starts)[:, None] + torch.arange(max(counts))[None]
                logits = self.model(
                    input_ids=torch.stack(rows),
                    position_ids=positions.clamp(max=self.max_length - 1).to(self.device),
                    attention_mask=attention_masks(config, step, self.model.dtype, self.device),
                    past_key_values=cache,
                    use_cache=True,
                ).logits
        except (ValueError, TypeError, RuntimeError, AttributeError, IndexError, KeyError) as error:
            log.info("sequences are decoded one at a time: %s", error)
            return False
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 0.3
        return all(float((logits[n, -1] - alone[n]).abs().max()) < tolerance for n in (0, 1))

    @cached_property
    def encoder(self) -> TextEncoder:
        """Text to tokens, as in training."""
        return TextEncoder(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text: none is special, and none is added."""
        return self.encoder.text([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones included, no spaces tidied."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def compute_dtype(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The type to compute in: the checkpoint's where the device is good at it.

    A CPU without units for it emulates bfloat16 many times slower than it computes float32 (SmolLM2-135M: a server
    times out); float16 is as bad. A GPU older than Ampere has float16 but no bfloat16.
    """
    if stored not in (torch.bfloat16, torch.float16):
        return stored
    if device.type == "cpu":
        return stored if stored == torch.bfloat16 and _cpu_has_bf16() else torch.float32
    if device.type == "cuda" and stored == torch.bfloat16 and not torch.cuda.is_bf16_supported(False):
        return torch.float16
    return stored


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def context_length(config: Any, tokenizer: Any) -> int:
    """Tokens the model can read: what lm-evaluation-harness takes it to be."""
    stated = positions(config)
    if stated is not None:
        return stated
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
