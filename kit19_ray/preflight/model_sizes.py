"""A model's sizes and, by formula, its number of parameters. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit19_ray.config.schema import ModelConfig

GATED = ("llama", "mistral", "qwen2")


@dataclass(frozen=True)
class Sizes:
    """What a decoder's memory follows from.

    Attributes:
        family: `gpt_neox`, or one of `GATED`, whose feed-forward layer has a gate.
        kv_heads: heads of keys and values; fewer than `heads` where several queries share one.
        head_size: width of one head.
        tied: whether the head's weights are the embedding's.
        attention_bias: whether the projections to queries, keys and values have biases (GATED only).
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    kv_heads: int
    head_size: int
    tied: bool = False
    attention_bias: bool = False

    @property
    def parameters(self) -> int:
        """Elements of all weights."""
        d, f, attention = self.hidden_size, self.intermediate_size, self.heads * self.head_size
        embeddings = self.vocab_size * d * (1 if self.tied else 2)
        if self.family == "gpt_neox":
            # queries, keys, values and output; two linear layers; two layer norms; every one with a bias.
            layer = (3 * d * d + 3 * d) + (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
            return embeddings + self.layers * layer + 2 * d
        shared = self.kv_heads * self.head_size
        biases = attention + 2 * shared if self.attention_bias else 0
        layer = d * attention + 2 * d * shared + attention * d + biases + 3 * d * f + 2 * d
        return embeddings + self.layers * layer + d

    @property
    def saved_per_token(self) -> int:
        """Elements of activation a layer keeps for the backward pass, per token.

        Counted as in arXiv 2205.05198, section 4.1, without dropout and with attention that keeps no scores: inputs of
        the norms, queries, keys and values, the rotated queries and keys, the attention's output, and the
        feed-forward layer before and after its activation.
        """
        d, f, attention, shared = (
            self.hidden_size, self.intermediate_size, self.heads * self.head_size, self.kv_heads * self.head_size,
        )  # fmt: skip
        heads = (attention + 2 * shared) + (attention + shared) + attention
        if self.family == "gpt_neox":
            return 3 * d + heads + 2 * f  # one input, read by both norms; the two norms' outputs
        # A root-mean-square norm keeps its input in float32 (twice the width in bf16) and what it was scaled to.
        return 6 * d + heads + 4 * f


# config.json of the two base models of the paper, for machines that cannot ask the hub.
PUBLISHED = {
    "EleutherAI/polyglot-ko-1.3b": Sizes("gpt_neox", 30080, 2048, 24, 16, 8192, 16, 128),
    "EleutherAI/polyglot-ko-5.8b": Sizes("gpt_neox", 30080, 4096, 28, 16, 16384, 16, 256),
}


def from_scratch(model: ModelConfig, vocab_size: int) -> Sizes:
    """The GPT-NeoX that the train stage builds."""
    d = model.hidden_size
    return Sizes(
        "gpt_neox", vocab_size, d, model.layers, model.heads, model.intermediate_size or 4 * d, model.heads,
        d // model.heads,
    )  # fmt: skip


def from_config(config: Mapping[str, Any]) -> Sizes | None:
    """The sizes a `config.json` states, or None for an architecture whose formula is not known here."""
    family = config.get("model_type")
    if family not in ("gpt_neox", *GATED):
        return None
    d, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return Sizes(
        family=str(family),
        vocab_size=int(config["vocab_size"]),
        hidden_size=d,
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        intermediate_size=int(config["intermediate_size"]),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or d // heads),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=family == "qwen2" or bool(config.get("attention_bias", False)),
    )
