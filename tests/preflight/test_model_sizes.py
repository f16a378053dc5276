from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers

from kit19_ray.config.schema import LoraConfig, ModelConfig
from kit19_ray.preflight.model_sizes import PUBLISHED, from_config, from_scratch

SMALL = {"vocab_size": 500, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("1.3b", 1_331_810_304),
        ("3.8b", 3_809_974_272),
        ("5.8b", 5_885_059_072),
    ],
)
def test_the_papers_base_models_have_the_parameters_they_are_published_with(size: str, parameters: int) -> None:
    assert PUBLISHED[f"EleutherAI/polyglot-ko-{size}"].parameters == parameters


def test_the_largest_has_them_but_for_its_padding() -> None:
    """The model card states 12,898,631,680, which is 0.04% more than the sizes that it states come to."""
    assert PUBLISHED["EleutherAI/polyglot-ko-12.8b"].parameters == pytest.approx(12_898_631_680, rel=5e-4)


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        ("GPTNeoX", {"intermediate_size": 192}),
        ("GPTNeoX", {"intermediate_size": 100, "tie_word_embeddings": True}),
        ("Llama", {"intermediate_size": 96, "num_key_value_heads": 2}),
        ("Llama", {"intermediate_size": 96, "head_dim": 20, "tie_word_embeddings": True}),
        ("Mistral", {"intermediate_size": 96, "num_key_value_heads": 2}),
        ("Llama", {"intermediate_size": 96, "attention_bias": True, "mlp_bias": True}),
        ("Qwen2", {"intermediate_size": 96, "num_key_value_heads": 2}),
        ("Qwen3", {"intermediate_size": 96, "num_key_value_heads": 2}),
        ("Qwen3", {"intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 20, "tie_word_embeddings": True}),
        ("Phi3", {"intermediate_size": 96, "num_key_value_heads": 2, "pad_token_id": 0}),
        ("Exaone4", {"intermediate_size": 96, "num_key_value_heads": 2}),
        ("Gemma", {"intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 20}),
        ("Gemma2", {"intermediate_size": 96, "num_key_value_heads": 2}),
        ("Gemma3Text", {"intermediate_size": 96, "num_key_value_heads": 2}),
    ],
)
def test_the_formula_counts_what_transformers_builds(family: str, keys: dict[str, Any]) -> None:
    config = getattr(transformers, f"{family}Config")(**SMALL, **keys)
    with torch.device("meta"):
        model = getattr(transformers, f"{family.removesuffix('Text')}ForCausalLM")(config)
    sizes = from_config(json.loads(config.to_json_string(use_diff=False)))
    assert sizes is not None and sizes.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it by that name
@pytest.mark.parametrize("family", ["GPTNeoX", "Qwen3", "Phi3"])
@pytest.mark.parametrize(
    "lora", [{}, {"kind": "dora"}, {"targets": ["query_key_value", "o_proj", "qkv_proj"], "kind": "rslora"}]
)
def test_the_formula_counts_the_adapters_that_peft_adds(family: str, lora: dict[str, Any]) -> None:
    peft: Any = pytest.importorskip("peft")
    config = getattr(transformers, f"{family}Config")(**SMALL, intermediate_size=96, pad_token_id=0)
    sizes = from_config(config.to_dict())
    assert sizes is not None
    wanted = LoraConfig(rank=4, **lora)
    targets = [name for name in sizes.linear if wanted.targets is None or name in wanted.targets]
    settings = peft.LoraConfig(r=4, target_modules=targets, use_dora=wanted.kind == "dora", task_type="CAUSAL_LM")
    model = peft.get_peft_model(getattr(transformers, f"{family}ForCausalLM")(config), settings)
    linear = {n.rsplit(".", 1)[-1] for n, m in model.get_base_model().named_modules() if isinstance(m, torch.nn.Linear)}
    assert set(sizes.linear) - set(targets) <= linear
    assert sizes.trained(wanted) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sizes.trained(LoraConfig()) == sizes.parameters


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
