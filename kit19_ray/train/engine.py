"""DeepSpeed, held to what the loop needs: a step on a global batch, a sum of losses, save, restore, full weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.errors import TrainError
from kit19_ray.lm import pretrained
from kit19_ray.train.batches import NO_ROW, Int64
from kit19_ray.train.loss import PackedLM, asked_positions
from kit19_ray.train.spec import Job

Batch = dict[str, torch.Tensor]

_TAG = "sharded"  # folder of DeepSpeed's files in a checkpoint
_STATE = "state.json"  # what else a checkpoint holds


def prepare_batch(split: PackedSplit, rows: Int64, device: torch.device) -> Batch:
    """The tensors of one forward pass on `rows`; NO_ROW gives a row without labels."""
    columns = split.rows(np.where(rows == NO_ROW, 0, rows))
    labels = columns["labels"]
    labels[rows == NO_ROW] = -100
    positions, targets = asked_positions(labels, columns["position_ids"])
    arrays = {
        "input_ids": columns["input_ids"].astype(np.int64),
        "position_ids": columns["position_ids"].astype(np.int64),
        "positions": positions,
        "targets": targets,
    }
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if device.type == "cpu":
        return batch
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}


def precision(job: Job) -> torch.dtype:
    """The type of weights and activations: the configured one, or what the device is good at."""
    wanted = job.config.precision
    if wanted == "auto":
        wanted = "bf16" if job.use_gpu and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def deepspeed_config(job: Job, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's config for `job`; the learning rate and the loss's scale are set by us."""
    stage = job.config.zero_stage
    config: dict[str, Any] = {
        "train_batch_size": job.plan.batch_size,
        "train_micro_batch_size_per_gpu": job.plan.micro_batch_size,
        "gradient_accumulation_steps": job.plan.accumulation,
        "gradient_clipping": job.config.clip_norm,
        "zero_optimization": {
            "stage": stage,
            "contiguous_gradients": True,
            "overlap_comm": job.use_gpu,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": dtype is torch.bfloat16},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    return config


class Engine:
    """One worker's part of the sharded model.

    Attributes:
        rank, world_size: of this worker.
        device: that the batches go to.
        module: the model; its parameters are sharded under ZeRO-3.
        parameters: elements of all weights.
    """

    def __init__(self, job: Job, device: torch.device) -> None:
        import deepspeed
        import torch.distributed as dist

        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        # An operator for inference that DeepSpeed would otherwise compile with gcc, for a minute, on the first run.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_init_required=False)  # takes up the group that Ray Train made
        self.rank, self.world_size, self.device = dist.get_rank(), dist.get_world_size(), device
        self.dtype = precision(job)
        self._job = job
        config = deepspeed_config(job, self.dtype)
        self.module = PackedLM(_model(job, config, self.dtype))
        if job.config.gradient_checkpointing:
            self.module.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.module.train()
        self.parameters = sum(_shape(p).numel() for p in self.module.parameters())
        buffers = {name: b.clone() for name, b in self.module.named_buffers() if b.is_floating_point()}
        self._engine, *_ = deepspeed.initialize(
            model=self.module, optimizer=self._optimizer(), config=config, dist_init_required=False
        )
        # DeepSpeed casts buffers with the weights; rotary frequencies in bf16 would train another model than the
        # one that is loaded from the export.
        for name, buffer in self.module.named_buffers():
            if name in buffers:
                buffer.data = buffers[name].to(device)

    def _optimizer(self) -> torch.optim.Optimizer:
        """Torch's fused AdamW (DeepSpeed's own is compiled at run time); no decay on biases and norms."""
        train = self._job.config
        named = [p for p in self.module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in named if len(_shape(p)) > 1], "weight_decay": train.weight_decay},
            {"params": [p for p in named if len(_shape(p)) <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=train.learning_rate, betas=(0.9, train.beta2), eps=1e-8, fused=True
        )

    def step(self, batches: list[Batch], learning_rate: float, num_labels: int) -> torch.Tensor:
        """One optimizer step on this rank's part of a global batch.

        Args:
            batches: one per forward pass, `accumulation` of them.
            num_labels: labels of the whole global batch, over all ranks.

        Returns:
            The summed loss of this rank's labels, on the device and not waited for.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in batches:
            loss = self._engine(**batch)
            # DeepSpeed averages gradients over the ranks; the loss is a mean over labels, so that is undone.
            self._engine.backward(loss * (self.world_size / max(1, num_labels)), scale_wrt_gas=False)
            self._engine.step()
            total += loss.detach()
        return total

    @property
    def gradient_norm(self) -> float:
        """Norm of the last step's gradient over all ranks, before clipping."""
        return float(self._engine.get_global_grad_norm() or 0.0)

    @torch.no_grad()
    def loss_sum(self, batch: Batch) -> torch.Tensor:
        """The summed loss of a batch, without gradients; all ranks must call it."""
        self._engine.eval()
        loss: torch.Tensor = self._engine(**batch)
        self._engine.train()
        return loss

    @torch.no_grad()
    def logits(self, batch: Batch) -> torch.Tensor:
        """All logits of a batch, float32 `[rows, seq_len, vocab]`; all ranks must call it."""
        self._engine.eval()
        out = self.module.logits(batch["input_ids"], batch["position_ids"])
        self._engine.train()
        return out

    def keeps_examples_apart(self) -> bool:
        """Whether positions that restart keep this model's packed examples from seeing each other; all ranks call it.

        Two rows differ in their first example only: the second example's logits must not.
        """
        half = 8
        ids = torch.arange(3 * half, device=self.device).remainder(max(2, self._job.vocab_size - 1))
        rows = torch.stack([torch.cat([ids[:half], ids[-half:]]), torch.cat([ids[half:-half], ids[-half:]])])
        places = torch.arange(half, device=self.device).repeat(2).expand(2, -1)
        found = self.logits({"input_ids": rows, "position_ids": places})[:, half:]
        return bool((found[0] - found[1]).abs().max() <= 1e-2 * found.abs().max())

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Writes this rank's shards, and `state` from rank 0, below `folder`; all ranks must call it."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)
        if self.rank == 0:
            sharding = {"world_size": self.world_size, "zero_stage": self._job.config.zero_stage}
            (folder / _STATE).write_text(json.dumps(state | {"sharding": sharding}))

    def restore(self, folder: Path) -> dict[str, Any]:
        """Takes up what `save` wrote and returns its state; all ranks must call it.

        Raises:
            TrainError: it was written by another number of workers or another ZeRO stage.
        """
        state: dict[str, Any] = json.loads((folder / _STATE).read_text())
        then, now = state["sharding"], {"world_size": self.world_size, "zero_stage": self._job.config.zero_stage}
        if then != now:
            raise TrainError(
                f"the run was begun with train.workers={then['world_size']} and train.zero_stage={then['zero_stage']}, "
                f"and its checkpoint cannot be taken up with train.workers={now['world_size']} and "
                f"train.zero_stage={now['zero_stage']}",
                hint=f"go on with the numbers it was begun with, or delete {self._job.out} to start again",
            )
        path, _ = self._engine.load_checkpoint(str(folder), tag=_TAG, load_lr_scheduler_states=False)
        if path is None:
            raise RuntimeError(f"DeepSpeed found no checkpoint in {folder / _TAG}")
        return state

    def full_weights(self) -> dict[str, torch.Tensor] | None:
        """The whole model's weights on the CPU at rank 0, None elsewhere; all ranks must call it."""
        prefix = "model."
        if self._job.config.zero_stage == 3:
            gathered = self._engine._zero3_consolidated_16bit_state_dict()
        else:
            gathered = self.module.state_dict() if self.rank == 0 else None
        if gathered is None:
            return None
        return {name.removeprefix(prefix): tensor.detach().cpu() for name, tensor in gathered.items()}


def _model(job: Job, config: dict[str, Any], dtype: torch.dtype) -> Any:
    wanted = job.config.model
    if wanted.name is None:
        # Built whole on every rank, also under ZeRO-3: so the weights are the same for any number of ranks.
        return pretrained.build_gpt_neox(
            hidden_size=wanted.hidden_size,
            layers=wanted.layers,
            heads=wanted.heads,
            intermediate_size=wanted.intermediate_size,
            vocab_size=job.vocab_size,
            seq_len=job.plan.seq_len,
            eos_token_id=job.eos_token_id,
            pad_token_id=job.pad_token_id,
            seed=job.seed,
        )
    if job.config.zero_stage != 3:
        return pretrained.load_causal_lm(wanted.name, dtype)
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    held = HfDeepSpeedConfig(config)  # type: ignore[no-untyped-call]  # while it lives, from_pretrained shards each weight as it is read
    try:
        return pretrained.load_causal_lm(wanted.name, dtype)
    finally:
        del held
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


def _shape(parameter: torch.Tensor) -> torch.Size:
    """The whole shape of a parameter, which under ZeRO-3 is not that of the part at hand."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
