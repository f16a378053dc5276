"""The config's `train` section."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from kit19_ray.config.section import RUNTIME, Section
from kit19_ray.errors import nearest, quote
from kit19_ray.utils.json_types import Json

VALIDATION_LOSS = "validation_loss"  # a score that the training makes itself
# Keys of a DeepSpeed config that follow from ours: the batch, the optimizer and the precision.
OWNED_DEEPSPEED_KEYS = (
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "bf16",
    "fp16", "optimizer", "scheduler", "zero_optimization.stage", "zero_optimization.offload_optimizer",
    "zero_optimization.offload_param", "zero_force_ds_cpu_optimizer", "zero_allow_untested_optimizer",
)  # fmt: skip
_DEEPSPEED_SECTIONS = (
    "zero_optimization", "communication_data_type", "prescale_gradients", "gradient_predivide_factor",
    "sparse_gradients", "activation_checkpointing", "aio", "comms_logger", "flops_profiler", "wall_clock_breakdown",
    "memory_breakdown", "dump_state", "data_types", "seq_parallel_communication_data_type", "torch_autocast",
    "communication_data_type_for_seq_parallel", "steps_per_print",
)  # fmt: skip


class ModelConfig(Section):
    """The base model: a published one, or a GPT-NeoX from scratch."""

    name: str | None = None
    """Hub id, local path or s3:// prefix of a Hugging Face causal LM with safetensors weights. None builds a GPT-NeoX
    with the sizes below and the data stage's tokenizer."""
    revision: str | None = None
    """Commit, tag or branch of a hub id; a commit is the one that cannot move. None means the newest of `main`."""
    grow_vocabulary: bool = False
    """Give a published model with fewer entries than the data's tokenizer the missing ones, each with the mean of the
    others. False refuses such a pair; a model with more entries keeps them either way. With `lora.rank`, embedding and
    head are then trained whole beside the adapters: frozen ones would never learn the entries."""
    hidden_size: int = Field(256, ge=8)
    """Width of the residual stream."""
    layers: int = Field(6, ge=1)
    """Transformer blocks."""
    heads: int = Field(8, ge=1)
    """Attention heads; must divide `hidden_size`."""
    intermediate_size: int | None = None
    """Width of the feed-forward layer. None means 4 x hidden_size."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads={self.heads} does not divide hidden_size={self.hidden_size}")
        return self


class LoraConfig(Section):
    """Low-rank adapters (arXiv 2106.09685) in place of all weights, as peft has them."""

    rank: int | None = Field(None, ge=1)
    """Rank of the adapters. None trains every weight. KULLM v2 trained Polyglot-Ko 12.8B with 8."""
    alpha: float = Field(16, gt=0)
    """The adapters' product is scaled by alpha / rank (rsLoRA: alpha / sqrt(rank)). KULLM v2 has 16."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of the adapters' inputs dropped while training."""
    targets: list[str] | None = None
    """Names of the linear layers that get an adapter, such as `query_key_value`. None means all but the head."""
    quantize: Literal["none", "nf4"] = "none"
    """nf4 keeps the frozen weights in 4 bits (QLoRA, arXiv 2305.14314), by bitsandbytes: for models that do not fit a
    GPU otherwise. The merged export adds the adapters to the base's own 16 bits."""
    kind: Literal["lora", "dora", "rslora"] = "lora"
    """lora; dora (arXiv 2402.09353) learns the weights' magnitudes too; rslora (arXiv 2312.03732) scales for high
    ranks."""


class BestConfig(Section):
    """Which checkpoint is exported: the best by a score that is made while the training goes on."""

    score: str | None = None
    """`validation_loss`, or `<task>.<metric>` as evaluate.gate names them, such as `kobest_copa.macro_f1` or, of
    held-out rows, `nsmc.accuracy`. None exports the last step, and nothing is scored on the way."""
    mode: Literal["max", "min"] | None = None
    """Which end of the scores is the best. None: the least validation_loss, the most of anything else."""
    every: int | None = Field(None, ge=1)
    """Optimizer steps between scored checkpoints; the last step is one of them. None means a tenth of the steps."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many scored checkpoints in a row that are no better than the best. None trains to the end."""
    limit: int | None = Field(None, ge=1)
    """Documents of the harness's task that are scored. None means evaluate.limit."""
    timeout_minutes: float = Field(120.0, gt=0, json_schema_extra=RUNTIME)
    """A checkpoint whose scoring takes longer goes without a score."""

    @model_validator(mode="after")
    def _named(self) -> BestConfig:
        if self.score is not None and self.score != VALIDATION_LOSS and not all(self.score.partition(".")):
            raise ValueError(f"score={quote(self.score)} is neither {VALIDATION_LOSS} nor <task>.<metric>")
        return self

    @property
    def task(self) -> str | None:
        """The task whose score it is, as scores.json names it; None for the validation loss and without a score."""
        return None if self.score in (None, VALIDATION_LOSS) else str(self.score).partition(".")[0]

    @property
    def metric(self) -> str:
        """The metric of `task`."""
        return str(self.score).partition(".")[2]

    @property
    def more_is_better(self) -> bool:
        """Whether the most is the best."""
        return self.mode == "max" if self.mode else self.score != VALIDATION_LOSS


class TrainConfig(Section):
    """Packed shards -> sharded training -> safetensors export."""

    data: str | None = Field(None, json_schema_extra=RUNTIME)
    """URI of a data prefix. None means the one this config's data section builds."""
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    zero_stage: Literal[1, 2, 3] = Field(2, json_schema_extra=RUNTIME)
    """DeepSpeed ZeRO stage: 1 shards optimizer state, 2 gradients too, 3 parameters too. A run may go on with
    another."""
    workers: int = Field(1, ge=1, json_schema_extra=RUNTIME)
    """Ray Train workers, one GPU each when `use_gpu`; `{min: 4, max: 16}` sets `min_workers` too. A run may go on with
    another number: the batches stay the same."""
    min_workers: int | None = Field(None, ge=1, json_schema_extra=RUNTIME)
    """Least workers to start or go on with while the cluster has no room for `workers`. None waits for all of them."""
    use_gpu: bool | None = Field(None, json_schema_extra=RUNTIME)
    """None uses GPUs when the cluster has any, or its autoscaler could start some."""
    cpus_per_worker: float = Field(1, gt=0, json_schema_extra=RUNTIME)
    """CPUs reserved by, and compute threads of, each worker."""
    batch_size: int = Field(64, ge=1)
    """Packed rows per optimizer step over all workers."""
    micro_batch_size: int = Field(4, ge=1, json_schema_extra=RUNTIME)
    """Most packed rows per forward pass of one worker; what is left of its share of the batch is accumulated."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the training split."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after this many optimizer steps, whatever `epochs` says."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate, reached after the warm-up. 2e-5 is KoAlpaca's for Polyglot-Ko 5.8B."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """What follows the warm-up. wsd: constant, then a linear decay over the last `decay_ratio` of the steps
    (arXiv 2404.06395)."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    """Share of the steps with a linear warm-up."""
    decay_ratio: float = Field(0.2, gt=0, le=1)
    """Share of the steps with the decay of `schedule: wsd`."""
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1)
    """The schedule ends at this share of the peak; without effect on `constant`."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """adamw keeps both moments in float32, 8 bytes a trained parameter. adamw_8bit (arXiv 2110.02861) keeps them in 2,
    by bitsandbytes: on GPUs only, and without `offload`."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled decay, not applied to biases and norms."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's first-moment decay."""
    beta2: float = Field(0.95, gt=0, lt=1)
    """AdamW's second-moment decay."""
    epsilon: float = Field(1e-8, gt=0)
    """AdamW's addition to the denominator."""
    clip_norm: float = Field(1.0, gt=0)
    """Global gradient norm is clipped to this."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs that have it, fp32 elsewhere."""
    attention: Literal["auto", "varlen", "masked"] = Field("auto", json_schema_extra=RUNTIME)
    """varlen: over each example alone, by flash attention on a GPU in bf16, one after the other on a CPU. masked: one
    mask a row, on any device. auto: varlen where it runs."""
    gradient_checkpointing: bool = Field(False, json_schema_extra=RUNTIME)
    """Recompute activations in the backward pass: less memory, about a third more compute."""
    offload: Literal["none", "optimizer", "all"] = Field("none", json_schema_extra=RUNTIME)
    """Keep the optimizer's state, or with ZeRO-3 the parameters too, in the nodes' memory: fits what else would not,
    and is slow."""
    compile: bool = Field(False, json_schema_extra=RUNTIME)
    """Compile each layer with torch.compile; not with ZeRO-3, whose hooks break the graphs."""
    deterministic: bool = Field(False, json_schema_extra=RUNTIME)
    """On GPUs, only kernels that give the same bits on every run, or an error. On CPUs a run always repeats."""
    deepspeed: Json = Field(default_factory=dict)
    """Further keys of DeepSpeed's config, such as `zero_optimization: {zero_hpz_partition_size: 8}`; those that follow
    from other keys here are refused."""
    eval_every: int | None = Field(None, ge=1, json_schema_extra=RUNTIME)
    """Optimizer steps between validation losses. None means a tenth of the steps."""
    save_minutes: float | None = Field(10.0, gt=0, json_schema_extra=RUNTIME)
    """Minutes between checkpoints: what a crash may cost. None saves by `save_every` alone."""
    save_every: int | None = Field(None, ge=1, json_schema_extra=RUNTIME)
    """Optimizer steps between checkpoints, beside `save_minutes`. None saves by time alone."""
    save_grace_minutes: float = Field(120.0, gt=0, json_schema_extra=RUNTIME)
    """A store that takes no checkpoint for this long ends the run; until then the training goes on without."""
    keep_checkpoints: int = Field(2, ge=1, json_schema_extra=RUNTIME)
    """Newest checkpoints kept under the run prefix."""
    keep_best: int = Field(0, ge=0, json_schema_extra=RUNTIME)
    """Checkpoints with the lowest validation loss kept besides."""
    best: BestConfig = BestConfig()
    log_every: int = Field(10, ge=1, json_schema_extra=RUNTIME)
    """Optimizer steps between lines of metrics.jsonl."""
    samples: int = Field(2, ge=0, json_schema_extra=RUNTIME)
    """Validation prompts answered beside each validation loss, into samples.jsonl; 0 answers none."""
    trackers: list[Literal["tensorboard", "prometheus", "mlflow", "wandb"]] = Field(
        ["tensorboard", "prometheus"], json_schema_extra=RUNTIME
    )
    """Where the metrics go besides metrics.jsonl. prometheus: gauges beside Ray's own, such as `ray_kit19_train_loss`.
    mlflow (MLFLOW_TRACKING_URI) and wandb need the extra of that name."""
    max_skipped_steps: int = Field(10, ge=0, json_schema_extra=RUNTIME)
    """Steps in a row whose gradient is not finite, and which are left out, before the run is given up."""
    spike_factor: float | None = Field(10.0, gt=1, json_schema_extra=RUNTIME)
    """Say aloud a gradient norm above this many times the median of the last 50. None says nothing."""
    timeout_minutes: float = Field(10.0, gt=0, json_schema_extra=RUNTIME)
    """A collective operation, or a phase of one worker, that takes longer has failed. Raise it for slow disks."""
    hang_minutes: float = Field(10.0, gt=0, json_schema_extra=RUNTIME)
    """Without a step for this long, or 20 times the median step, every worker writes its stacks and starts again."""
    max_failures: int = Field(3, ge=-1, json_schema_extra=RUNTIME)
    """Worker failures after which the run is given up; -1 never gives up. A preempted node does not count."""

    @model_validator(mode="before")
    @classmethod
    def _workers_from_to(cls, values: Any) -> Any:
        found = values.get("workers") if isinstance(values, dict) else None
        if not isinstance(found, dict):
            return values
        if found.keys() != {"min", "max"}:
            raise ValueError(f"workers: a mapping has the keys min and max, this has {', '.join(map(str, found))}")
        return values | {"workers": found["max"], "min_workers": found["min"]}

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers={self.min_workers} is more than workers={self.workers}")
        if self.offload == "all" and self.zero_stage != 3:
            raise ValueError(f"offload=all moves parameters, which zero_stage={self.zero_stage} does not shard: set 3")
        if self.lora.rank and self.model.name is None:
            raise ValueError("lora.rank adapts a published model: set model.name")
        if self.lora.rank and self.lora.kind == "dora" and self.zero_stage == 3:
            raise ValueError("lora.kind=dora reads whole weights, which zero_stage=3 shards: set 1 or 2")
        if self.lora.quantize != "none" and not self.lora.rank:
            raise ValueError("lora.quantize is for the frozen weights under adapters: set lora.rank")
        if self.lora.quantize != "none" and self.zero_stage == 3:
            raise ValueError("lora.quantize=nf4 does not go with zero_stage=3, which shards weights as they are: set 2")
        if self.optimizer == "adamw_8bit" and self.use_gpu is False:
            raise ValueError("optimizer=adamw_8bit does not go with use_gpu=false: it steps on GPUs only; set adamw")
        if self.optimizer == "adamw_8bit" and self.offload != "none":
            raise ValueError(
                f"optimizer=adamw_8bit does not go with offload={self.offload}, whose steps are a CPU's: set adamw, or "
                "offload=none"
            )
        if self.compile and self.zero_stage == 3:
            raise ValueError("compile does not go with zero_stage=3")
        _check_deepspeed(self.deepspeed)
        return self

    @property
    def embeddings_beside_adapters(self) -> bool:
        """Whether embedding and head are trained whole, and everything else through adapters."""
        return self.lora.rank is not None and self.model.grow_vocabulary

    @property
    def needing_bitsandbytes(self) -> list[str]:
        """Keys whose values need that package."""
        keys = {"lora.quantize": self.lora.quantize != "none", "optimizer": self.optimizer == "adamw_8bit"}
        return [key for key, needed in keys.items() if needed]

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change while the run goes on."""
        return self.min_workers is not None and self.min_workers < self.workers


def _check_deepspeed(given: Json) -> None:
    flat = set(given)
    if isinstance(given.get("zero_optimization"), dict):
        flat |= {f"zero_optimization.{key}" for key in given["zero_optimization"]}
    for key in sorted(flat):
        if key in OWNED_DEEPSPEED_KEYS:
            raise ValueError(f"deepspeed.{key} follows from other keys of `train`, and is set by them")
        if key.partition(".")[0] not in _DEEPSPEED_SECTIONS:
            raise ValueError(f"deepspeed.{key} is no key that may be set here{nearest(key, _DEEPSPEED_SECTIONS)}")
