"""The model a worker trains: built or loaded, with adapters where they are asked for."""

from __future__ import annotations

from typing import Any

import torch

from kit19_ray.config.schema import LoraConfig
from kit19_ray.errors import TrainError, nearest, quote
from kit19_ray.lm import pretrained
from kit19_ray.train.spec import TrainSpec
from kit19_ray.utils.json_types import Json

ADAPTER = "default"  # peft's name of an adapter nobody named


def precision(spec: TrainSpec) -> torch.dtype:
    """The type of weights and activations: the configured one, or what the device is good at."""
    wanted = spec.config.precision
    if wanted == "auto":
        wanted = "bf16" if spec.use_gpu and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def from_scratch(spec: TrainSpec) -> Any:
    """The GPT-NeoX of the config's sizes, with fresh weights."""
    wanted = spec.config.model
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


def build(spec: TrainSpec, config: Json, dtype: torch.dtype) -> Any:
    """The model to train, on the CPU, or sharded under ZeRO-3.

    Args:
        config: DeepSpeed's.
    """
    wanted = spec.config.model
    if wanted.name is None:
        # Built whole on every rank, also under ZeRO-3: so the weights are the same for any number of ranks.
        return from_scratch(spec)
    if spec.config.zero_stage != 3:
        return _loaded(spec, wanted.name, dtype)
    return _sharded(spec, wanted.name, dtype, config)


def _loaded(spec: TrainSpec, name: str, dtype: torch.dtype) -> Any:
    few_bits = quantization(dtype) if spec.config.lora.quantize != "none" else None
    model = pretrained.load_causal_lm(name, dtype, spec.config.model.revision, quantized=few_bits)
    if few_bits is not None:
        keep_gradients(model)
    if spec.config.model.grow_vocabulary:
        grow_vocabulary(model, spec.vocab_size)
    return model


def keep_gradients(model: Any) -> None:
    """Has layers of 4 bits stay as they are in evaluation.

    On a CPU with AVX512-BF16 bitsandbytes packs their weights anew at the first forward pass without gradients, for an
    operator that has none: a training that goes on after it would pass no gradient back through those layers.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quantization(dtype: torch.dtype) -> Any:
    """Weights of 4 bits, as the QLoRA paper has them."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,  # DeepSpeed casts and sends weights by their type
    )


def grow_vocabulary(model: Any, size: int) -> None:
    """Adds entries up to `size`, each the mean of those that were there; a model that has as many stays as it is."""
    known = model.get_input_embeddings().num_embeddings
    if known >= size:
        return
    # transformers' own means are draws around the mean: another model on every rank.
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is None:
                continue
            for tensor in (layer.weight, getattr(layer, "bias", None)):
                if tensor is not None:
                    tensor[known:] = tensor[:known].float().mean(dim=0).to(tensor.dtype)


def _sharded(spec: TrainSpec, name: str, dtype: torch.dtype, config: Json) -> Any:
    """The model sharded over the ranks. Rank 0 alone reads the weights; the others need its config and the network."""
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    source = _loaded(spec, name, dtype) if dist.get_rank() == 0 else None
    shape = source.config if source is not None else pretrained.load_config(name, spec.config.model.revision)
    text = shape.get_text_config()
    if spec.config.model.grow_vocabulary:
        text.vocab_size = max(text.vocab_size, spec.vocab_size)
    held = HfDeepSpeedConfig(config)  # type: ignore[no-untyped-call]  # while it lives, each weight is sharded as it is made
    try:
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            shape, dtype=dtype, trust_remote_code=False
        )
    finally:
        del held
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    fill(model, source)
    if source is not None:
        model.generation_config = source.generation_config
    return model


def fill(model: Any, source: Any | None) -> None:
    """Gives a sharded model the weights that rank 0 has in `source`, one after the other; all ranks must call it.

    Args:
        source: the same model whole, on the CPU; None at the other ranks.
    """
    import deepspeed
    import torch.distributed as dist

    given = {} if source is None else dict(source.named_parameters(remove_duplicate=False))
    for name, parameter in model.named_parameters():
        with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if given:
                parameter.copy_(given[name])
    whole = {} if source is None else source.state_dict()
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    # By every name it has: a head that is tied to the embedding is no buffer, and other ranks have no part of it.
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, buffer in model.state_dict().items():
        if name in parameters:
            continue
        sent = (whole[name] if whole else torch.empty_like(buffer)).to(device)
        dist.broadcast(sent, src=0)
        buffer.copy_(sent)


def shell(spec: TrainSpec) -> Any:
    """The model of the run without its weights, on the meta device."""
    from transformers import AutoModelForCausalLM

    wanted = spec.config.model
    with torch.device("meta"):
        if wanted.name is None:
            return from_scratch(spec)
        config = pretrained.load_config(wanted.name, wanted.revision)
        text = config.get_text_config()
        if wanted.grow_vocabulary:
            text.vocab_size = max(text.vocab_size, spec.vocab_size)
        return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]


def add_adapters(model: Any, lora: LoraConfig, seed: int, embeddings: bool = False) -> Any:
    """Puts adapters into `model`, in place, and freezes all else.

    Args:
        embeddings: leave embedding and head to be trained whole.

    Returns:
        peft's model around it, which knows how adapters are saved.

    Raises:
        TrainError: no layer has one of the names, or embedding or head would be trained twice.
    """
    import peft

    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    unknown = [target for target in lora.targets or [] if target not in names]
    if unknown:
        raise TrainError(
            f"train.lora.targets: {type(model).__name__} has no linear layer {quote(unknown[0])}"
            f"{nearest(unknown[0], names)}; it has {', '.join(sorted(names))}"
        )
    whole = _embeddings(model) if embeddings else {}
    if twice := whole.keys() & set(lora.targets or []):
        raise TrainError(
            f"train.lora.targets: {quote(min(twice))} is trained whole because of train.model.grow_vocabulary=true",
            hint="leave it out of train.lora.targets",
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
        adapted = peft.get_peft_model(model, settings)
    for layer in whole.values():
        layer.requires_grad_(True)
    return adapted


def _embeddings(model: Any) -> dict[str, torch.nn.Module]:
    """Embedding and head, by the last word of their names."""
    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    return {
        name.rsplit(".", 1)[-1]: module
        for name, module in model.named_modules()
        if any(module is layer for layer in layers)
    }
