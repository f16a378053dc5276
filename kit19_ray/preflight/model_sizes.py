"""A model's sizes and, by formula, its number of parameters. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit19_ray.config.schema import LoraConfig, ModelConfig


@dataclass(frozen=True)
class Family:
    """What the architectures with a gated feed-forward layer differ in, as transformers builds them.

    Attributes:
        norms: root-mean-square norms of a layer, over its whole width.
        head_norms: whether queries and keys have a norm over each head.
        fused: whether queries, keys and values are one linear layer, and gate and up another.
        head_size, tied: what a `config.json` that does not say so means; None: width / heads.
    """

    norms: int = 2
    head_norms: bool = False
    fused: bool = False
    head_size: int | None = None
    tied: bool = False


GATED = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(),
    "qwen3": Family(head_norms=True, head_size=128),
    "phi3": Family(fused=True),
    "exaone4": Family(head_norms=True),
    "gemma": Family(head_size=256, tied=True),
    "gemma2": Family(norms=4, head_size=256, tied=True),
    "gemma3_text": Family(norms=4, head_norms=True, head_size=256, tied=True),
}
"""By `model_type`. EXAONE 3 and older need code from the hub, which is never run."""


@dataclass(frozen=True)
class Sizes:
    """What a decoder's memory follows from.

    Attributes:
        family: `gpt_neox`, or one of `GATED`, whose feed-forward layer has a gate.
        kv_heads: heads of keys and values; fewer than `heads` where several queries share one.
        head_size: width of one head.
        tied: whether the head's weights are the embedding's.
        attention_bias: whether the projections to queries, keys and values have biases (GATED only).
        output_bias, mlp_bias: whether the attention's output, and the feed-forward layers, have them (GATED only).
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
    output_bias: bool = False
    mlp_bias: bool = False

    @property
    def parameters(self) -> int:
        """Elements of all weights."""
        d, f, attention = self.hidden_size, self.intermediate_size, self.heads * self.head_size
        if self.family == "gpt_neox":
            # queries, keys, values and output; two linear layers; two layer norms; every one with a bias.
            layer = (3 * d * d + 3 * d) + (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
            return self.embeddings + self.layers * layer + 2 * d
        shared = self.kv_heads * self.head_size
        biases = attention + 2 * shared if self.attention_bias else 0
        biases += (d if self.output_bias else 0) + (2 * f + d if self.mlp_bias else 0)
        family = GATED[self.family]
        norms = family.norms * d + (2 * self.head_size if family.head_norms else 0)
        layer = d * attention + 2 * d * shared + attention * d + biases + 3 * d * f + norms
        return self.embeddings + self.layers * layer + d

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """A layer's linear layers by name: what each takes and gives, per token."""
        d, f, attention = self.hidden_size, self.intermediate_size, self.heads * self.head_size
        if self.family == "gpt_neox":
            return {
                "query_key_value": (d, 3 * d), "dense": (d, d), "dense_h_to_4h": (d, f), "dense_4h_to_h": (f, d),
            }  # fmt: skip
        shared = self.kv_heads * self.head_size
        last = {"o_proj": (attention, d), "down_proj": (f, d)}
        if GATED[self.family].fused:
            return {"qkv_proj": (d, attention + 2 * shared), "gate_up_proj": (d, 2 * f)} | last
        first = {"q_proj": (d, attention), "k_proj": (d, shared), "v_proj": (d, shared)}
        return first | {"gate_proj": (d, f), "up_proj": (d, f)} | last

    def adapted(self, lora: LoraConfig) -> list[tuple[int, int]]:
        """Those of a layer's linear layers that get an adapter: what each takes and gives."""
        return [shape for name, shape in self.linear.items() if lora.targets is None or name in lora.targets]

    @property
    def embeddings(self) -> int:
        """Elements of embedding and head."""
        return self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    def trained(self, lora: LoraConfig, beside: bool = False) -> int:
        """Elements that are trained: all, or the adapters' (DoRA: and a magnitude for each of a layer's outputs).

        Args:
            beside: embedding and head are trained whole beside the adapters.
        """
        if not lora.rank:
            return self.parameters
        magnitudes = 1 if lora.kind == "dora" else 0
        adapters = self.layers * sum(lora.rank * (a + b) + magnitudes * b for a, b in self.adapted(lora))
        return adapters + (self.embeddings if beside else 0)

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
        family = GATED[self.family]
        return 3 * family.norms * d + (3 * (attention + shared) if family.head_norms else 0) + heads + 4 * f


# config.json of the base models of `configs/`, for machines that cannot ask the hub.
PUBLISHED = {
    "EleutherAI/polyglot-ko-1.3b": Sizes("gpt_neox", 30080, 2048, 24, 16, 8192, 16, 128),
    "EleutherAI/polyglot-ko-3.8b": Sizes("gpt_neox", 30080, 3072, 32, 24, 12288, 24, 128),
    "EleutherAI/polyglot-ko-5.8b": Sizes("gpt_neox", 30080, 4096, 28, 16, 16384, 16, 256),
    "EleutherAI/polyglot-ko-12.8b": Sizes("gpt_neox", 30080, 5120, 40, 40, 20480, 40, 128),
    "Qwen/Qwen3-8B": Sizes("qwen3", 151936, 4096, 36, 32, 12288, 8, 128),
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
    known = GATED.get(str(family), Family())
    d, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return Sizes(
        family=str(family),
        vocab_size=int(config["vocab_size"]),
        hidden_size=d,
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        intermediate_size=int(config["intermediate_size"]),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(config.get("head_dim") or known.head_size or d // heads),
        tied=bool(config.get("tie_word_embeddings", known.tied)),
        attention_bias=family == "qwen2" or bool(config.get("attention_bias", False)),
        output_bias=family != "qwen2" and bool(config.get("attention_bias", False)),
        mlp_bias=family == "llama" and bool(config.get("mlp_bias", False)),
    )
