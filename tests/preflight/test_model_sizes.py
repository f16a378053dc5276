from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers

from kit19_ray.config.schema import ModelConfig
from kit19_ray.preflight.model_sizes import PUBLISHED, from_config, from_scratch

SMALL = {"vocab_size": 500, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.mark.parametrize(("size", "parameters"), [("1.3b", 1_331_810_304), ("5.8b", 5_885_059_072)])
def test_the_papers_base_models_have_the_parameters_they_are_published_with(size: str, parameters: int) -> None:
    assert PUBLISHED[f"EleutherAI/polyglot-ko-{size}"].parameters == parameters


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("GPTNeoX", {"intermediate_size": 192}),
        ("GPTNeoX", {"intermediate_size": 100, "tie_word_embeddings": True}),
        ("Llama", {"intermediate_size": 96, "num_key_value_heads": 2}),
        ("Llama", {"intermediate_size": 96, "head_dim": 20, "tie_word_embeddings": True}),
        ("Mistral", {"intermediate_size": 96, "num_key_value_heads": 2}),
        ("Qwen2", {"intermediate_size": 96, "num_key_value_heads": 2}),
    ],
)
def test_the_formula_counts_what_transformers_builds(family: str, keys: dict[str, Any]) -> None:
    config = getattr(transformers, f"{family}Config")(**SMALL, **keys)
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    sizes = from_config(json.loads(config.to_json_string(use_diff=False)))
    assert sizes is not None and sizes.parameters == sum(p.numel() for p in model.parameters())


def test_from_scratch_is_what_the_train_stage_builds() -> None:
    from kit19_ray.lm import pretrained

    config = ModelConfig(hidden_size=48, layers=3, heads=4, intermediate_size=100)
    with torch.device("meta"):
        built = pretrained.build_gpt_neox(
            hidden_size=48, layers=3, heads=4, intermediate_size=100, vocab_size=500, seq_len=64, eos_token_id=0,
            pad_token_id=0, seed=1,
        )  # fmt: skip
    assert from_scratch(config, 500).parameters == sum(p.numel() for p in built.parameters())


def test_an_architecture_without_a_formula_has_no_sizes() -> None:
    assert from_config({"model_type": "mamba"}) is None
