"""The model a worker trains: built or loaded, with adapters where they are asked for."""

from __future__ import annotations

from typing import Any

import torch

from kit19_ray.config.schema import LoraConfig
from kit19_ray.errors import TrainError, nearest, quote
from kit19_ray.lm import pretrained
from kit19_ray.train.spec import TrainSpec

ADAPTER = "default"  # peft's name of an adapter nobody named


def precision(spec: TrainSpec) -> torch.dtype:
    """The type of weights and activations: the configured one, or what the device is good at."""
    wanted = spec.config.precision
    if wanted == "auto":
        wanted = "bf16" if spec.use_gpu and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def build(spec: TrainSpec, config: dict[str, Any], dtype: torch.dtype) -> Any:
    """The model to train, on the CPU, or sharded as it is read under ZeRO-3.

    Args:
        config: DeepSpeed's.
    """
    wanted = spec.config.model
    if wanted.name is None:
        # Built whole on every rank, also under ZeRO-3: so the weights are the same for any number of ranks.
        return pretrained.build_gpt_neox(
            hidden_size=wanted.hidden_size,
            layers=wanted.layers,
            heads=wanted.heads,
            intermediate_size=wanted.intermediate_size,
            vocab_size=spec.vocab_size,
            seq_len=spec.plan.seq_len,
            eos_token_id=spec.eos_token_id,
            pad_token_id=spec.pad_token_id,
            seed=spec.seed,
        )
    if spec.config.zero_stage != 3:
        return pretrained.load_causal_lm(wanted.name, dtype, wanted.revision)
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    held = HfDeepSpeedConfig(config)  # type: ignore[no-untyped-call]  # while it lives, from_pretrained shards each weight as it is read
    try:
        return pretrained.load_causal_lm(wanted.name, dtype, wanted.revision)
    finally:
        del held
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


def add_adapters(model: Any, lora: LoraConfig, seed: int) -> Any:
    """Puts adapters into `model`, in place, and freezes all else.

    Returns:
        peft's model around it, which knows how adapters are saved.

    Raises:
        TrainError: no layer has one of the names.
    """
    import peft

    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    unknown = [target for target in lora.targets or [] if target not in names]
    if unknown:
        raise TrainError(
            f"train.lora.targets: {type(model).__name__} has no linear layer {quote(unknown[0])}"
            f"{nearest(unknown[0], names)}; it has {', '.join(sorted(names))}"
        )
    settings = peft.LoraConfig(
        r=int(lora.rank or 0),
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft divides by the rank: a fraction is sound
        lora_dropout=lora.dropout,
        target_modules=lora.targets or "all-linear",
        use_dora=lora.kind == "dora",
        use_rslora=lora.kind == "rslora",
        task_type="CAUSAL_LM",
    )
    # The same adapters on every rank, and on every number of them.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(model, settings)
