"""What DeepSpeed is told."""

from __future__ import annotations

import torch

from kit19_ray.train.spec import TrainSpec, accumulation
from kit19_ray.utils.json_types import Json


def deepspeed_config(spec: TrainSpec, dtype: torch.dtype, workers: int) -> Json:
    """DeepSpeed's config for `workers` workers; the learning rate and the loss's scale are set by us.

    Where the batch does not divide, the product of the three sizes is more than the batch. DeepSpeed uses them for
    nothing but the number of passes between two updates.
    """
    train, plan = spec.config, spec.plan
    passes = accumulation(plan.batch_size, plan.micro_batch_size, workers)
    zero: Json = {
        "stage": train.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": spec.use_gpu,
    }
    config: Json = {
        "train_batch_size": plan.micro_batch_size * passes * workers,
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": train.clip_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": dtype is torch.bfloat16},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    if train.optimizer == "adamw_8bit":
        config["zero_allow_untested_optimizer"] = True  # "untested" is any but DeepSpeed's own, apex's and torch's
    if train.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": spec.use_gpu}
        config["zero_force_ds_cpu_optimizer"] = False  # DeepSpeed's own Adam would be compiled when the run starts
    if train.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": spec.use_gpu}
    return _merged(config, train.deepspeed)


def _merged(config: Json, more: Json) -> Json:
    out = dict(config)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if both else value
    return out
