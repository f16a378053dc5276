"""DeepSpeed, held to what the trainer needs: a step on a global batch, a sum of losses, logits, state, full weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch

from kit19_ray.errors import TrainError, quote
from kit19_ray.lm import attention
from kit19_ray.train import model as models
from kit19_ray.train.deepspeed_config import deepspeed_config
from kit19_ray.train.inputs import Batch, to_device, without_targets
from kit19_ray.train.loss import PackedLM
from kit19_ray.train.optimizers import OPTIMIZERS
from kit19_ray.train.spec import TrainSpec
from kit19_ray.train.state_pieces import Piece, finish_restore, local_pieces

_PREFIX = "model."  # of the model's parameters in PackedLM


def load_model(spec: TrainSpec) -> Any:
    """The model to train, see `model.build`; under ZeRO-3 all ranks must call it."""
    import deepspeed
    import torch.distributed as dist

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # An operator for inference that DeepSpeed would otherwise compile with gcc, for a minute, on the first run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_init_required=False)  # takes up the group that Ray Train made
    dtype = models.precision(spec)
    return models.build(spec, deepspeed_config(spec, dtype, dist.get_world_size()), dtype)


class TrainEngine:
    """One worker's part of the sharded model.

    Args:
        model: what `load_model` gave.

    Attributes:
        rank, world_size: of this worker.
        device: that the batches go to.
        module: the model; its parameters are sharded under ZeRO-3.
        adapted: peft's model, None where every weight is trained.
        parameters, trained_parameters: elements of all weights, and of those that are trained.
        flat: whether batches are laid end to end, for attention by borders.
    """

    def __init__(self, spec: TrainSpec, device: torch.device, model: Any) -> None:
        import deepspeed
        import torch.distributed as dist

        self.rank, self.world_size, self.device = dist.get_rank(), dist.get_world_size(), device
        self.dtype = models.precision(spec)
        self._spec = spec
        config = deepspeed_config(spec, self.dtype, self.world_size)
        self.flat = self._by_borders(model)
        self.adapted = None
        if spec.config.lora.rank:
            beside = spec.config.embeddings_beside_adapters
            self.adapted = models.add_adapters(model, spec.config.lora, spec.seed, beside)
        self.module = PackedLM(model)
        if spec.config.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.module.train()
        self.parameters = sum(_shape(p).numel() for p in self.module.parameters())
        self.trained_parameters = sum(_shape(p).numel() for p in self.module.parameters() if p.requires_grad)
        buffers = {name: b.clone() for name, b in self.module.named_buffers() if b.is_floating_point()}
        optimizer = self._optimizer()
        self._moments = OPTIMIZERS[spec.config.optimizer].moments(optimizer)
        self._engine, *_ = deepspeed.initialize(
            model=self.module, optimizer=optimizer, config=config, dist_init_required=False
        )
        # DeepSpeed casts buffers with the weights; rotary frequencies in bf16 would train another model than the
        # one that is loaded from the export.
        for name, buffer in self.module.named_buffers():
            if name in buffers:
                buffer.data = buffers[name].to(device)
        self._check_model()
        if spec.config.compile:
            for layer in _layers(model):
                layer.compile()

    def _by_borders(self, model: Any) -> bool:
        wanted = self._spec.config.attention
        if wanted == "masked":
            return False
        why = attention.why_masked(model, self.device, self.dtype)
        if why is not None:
            if wanted == "varlen":
                raise TrainError(f"train.attention=varlen: {why}", hint="set train.attention=auto")
            return False
        attention.register()
        model.set_attn_implementation(attention.NAME)
        return True

    def _optimizer(self) -> Any:
        """The configured AdamW; no decay on biases and norms."""
        train = self._spec.config
        trained = [p for p in self.module.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if len(_shape(p)) > 1], "weight_decay": train.weight_decay},
            {"params": [p for p in trained if len(_shape(p)) <= 1], "weight_decay": 0.0},
        ]
        return OPTIMIZERS[train.optimizer].make(
            [g for g in groups if g["params"]], train.learning_rate, (train.beta1, train.beta2), train.epsilon
        )

    def step(self, batches: list[Batch], learning_rate: float, num_labels: int) -> torch.Tensor:
        """One optimizer step on this rank's part of a global batch.

        Args:
            batches: one per forward pass, as many on every rank.
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
            # num_labels is of the GLOBAL batch: a rank with few labels must not count as much as one with many, and a
            # run on another number of workers must give the same gradient. max(1, ...): a batch of prompts alone has no
            # label.
            self._engine.backward(loss * (self.world_size / max(1, num_labels)), scale_wrt_gas=False)
            self._engine.step()
            total += loss.detach()
        return total

    @property
    def step_applied(self) -> bool:
        """Whether the last step changed the weights: DeepSpeed leaves out one whose gradient is not finite."""
        return bool(self._engine.was_step_applied())

    @property
    def gradient_norm(self) -> float:
        """Norm of the last step's gradient over all ranks, before clipping."""
        return float(self._engine.get_global_grad_norm() or 0.0)

    @torch.no_grad()
    def losses(self, batch: Batch) -> torch.Tensor:
        """The loss of each target of a batch, float32 `[n]`, without gradients; all ranks must call it."""
        self._engine.eval()
        loss: torch.Tensor = self._engine(**batch, each=True)
        self._engine.train()
        return loss

    @torch.no_grad()
    def logits(self, batch: Batch) -> torch.Tensor:
        """All logits of a batch, float32 `[rows, seq_len, vocab]`; all ranks must call it."""
        self._engine.eval()
        out = self.module.logits(**without_targets(batch))
        self._engine.train()
        return out.reshape(-1, self._spec.plan.seq_len, out.shape[-1]) if self.flat else out

    def next_token(self, tokens: list[int]) -> int:
        """The likeliest token after one sequence; all ranks must call it, with the same tokens."""
        import numpy as np

        row = np.array([tokens], np.int32)
        columns = {
            "input_ids": row,
            "labels": np.full_like(row, -100),
            "position_ids": np.arange(len(tokens), dtype=np.int32)[None],
        }
        batch = without_targets(to_device(columns, self.device, self.flat))
        self._engine.eval()
        with torch.no_grad():
            logits = self.module.logits(**batch)
        self._engine.train()
        return int(logits[0, -1].argmax())

    def _check_model(self) -> None:
        """Looks once whether the head is linear, and whether packed examples are kept apart; all ranks call it.

        Raises:
            TrainError: the model lets packed examples see each other.
        """
        batch = _two_rows(self._spec.vocab_size, self.device, self.flat)
        self._engine.eval()
        self.module.find_head(**without_targets(batch))
        found = self.module.logits(**without_targets(batch)).detach()
        self._engine.train()
        if not check_packed_attention(found):
            raise TrainError(
                f"train.model.name={quote(self._spec.config.model.name)}: {type(self.module.model).__name__} lets "
                "packed examples see each other: it does not take their borders from the positions",
                hint="use a model whose attention masks follow position_ids, such as GPT-NeoX, Llama, Mistral or Qwen2",
            )

    def pieces(self) -> list[Piece]:
        """This rank's part of weights and moments, by parameter; `finish_restore` takes up what is written there."""
        names = {id(p): name.removeprefix(_PREFIX) for name, p in self.module.named_parameters()}
        return local_pieces(self._engine.optimizer, names, self._spec.config.zero_stage, self._moments)

    def finish_restore(self, pieces: list[Piece], updates: int) -> None:
        """Call it when the pieces were written, with the optimizer steps taken so far; all ranks must."""
        finish_restore(self._engine.optimizer, pieces, self._spec.config.zero_stage, self._moments, updates)

    def full_weights(self, trained_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """The whole weights one by one, on the CPU at rank 0 and empty elsewhere; all ranks must run through it.

        Args:
            trained_only: leave out frozen weights.
        """
        import deepspeed

        sharded = self._spec.config.zero_stage == 3
        named = dict(self.module.model.named_parameters(remove_duplicate=False))
        tensors = named | {name: tensor for name, tensor in self.module.model.state_dict().items() if name not in named}
        for name, tensor in tensors.items():
            if trained_only and not tensor.requires_grad:
                continue
            with deepspeed.zero.GatheredParameters([tensor], enabled=sharded and hasattr(tensor, "ds_id")):
                yield name, tensor.detach().to("cpu", copy=True) if self.rank == 0 else torch.empty(0)


def check_packed_attention(logits: torch.Tensor) -> bool:
    """Whether the logits of `_two_rows` show that positions that restart keep packed examples apart."""
    half = _EXAMPLE
    # The second example is the same in both rows; whatever differs in its logits came from the first.
    second = logits.reshape(2, 2 * half, -1)[:, half:]
    return bool((second[0] - second[1]).abs().max() <= 1e-2 * second.abs().max())


_EXAMPLE = 8  # tokens of an example of `_two_rows`


def _two_rows(vocab_size: int, device: torch.device, flat: bool) -> Batch:
    """Two rows of two examples that differ in the first one only: the second one's logits must not."""
    import numpy as np

    half = _EXAMPLE
    ids = (np.arange(3 * half) % max(2, vocab_size - 1)).astype(np.int32)
    rows = np.stack([np.concatenate([ids[:half], ids[-half:]]), np.concatenate([ids[half:-half], ids[-half:]])])
    places = np.tile(np.arange(half, dtype=np.int32), (2, 2))
    return to_device({"input_ids": rows, "labels": np.full_like(rows, -100), "position_ids": places}, device, flat)


def _layers(model: Any) -> Any:
    """The list of a model's equal layers, the longest one there is."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len)


def _shape(parameter: torch.Tensor) -> torch.Size:
    """The whole shape of a parameter: not that of the part at hand (ZeRO-3), nor of packed bits (lora.quantize)."""
    quantized = getattr(parameter, "quant_state", None)
    if quantized is not None:
        return torch.Size(quantized.shape)
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
