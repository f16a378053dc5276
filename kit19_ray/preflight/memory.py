"""Bytes one train worker needs, and which settings would make it fit. Formulas only; nothing is measured here.

Weights, gradients and optimizer state: ZeRO (arXiv 1910.02054, section 3): for P parameters on N workers in bf16 with
Adam, 2P + 2P + 12P bytes, the last divided by N from stage 1 on, the second from stage 2, the first from stage 3. In
fp32 the weights and gradients take 4P each; DeepSpeed keeps its own float32 copy of the weights then too, so it stays
12P. `train.optimizer: adamw_8bit` keeps Adam's two moments in a byte each and a float32 scale for 256 elements, 2.03P
instead of 8P; partitions of fewer than 4,096 elements, which stay float32, are nothing beside that.

With adapters (arXiv 2106.09685), P is the adapters' parameters in gradients and optimizer state: the frozen weights
have neither. `train.offload` takes the optimizer's state, or the weights too, from the GPU to the node's memory; what
gradients DeepSpeed then moves as well is still counted on the GPU.

Activations: arXiv 2205.05198, section 4.1; see `model_sizes.Sizes.saved_per_token`. A test compares them with what
autograd keeps. An adapter keeps its input after dropout, the dropout's mask, and its inner product.

Buffers: DeepSpeed's buckets of 5e8 elements, two when communication overlaps (GPU), and under ZeRO-3 up to 1e9 gathered
parameters, each its default. A bucket larger than the model is allocated on a GPU all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from kit19_ray.config.schema import LoraConfig
from kit19_ray.preflight.model_sizes import Sizes

GB = 10**9
CARDS = (40, 80, 141)
"""Memory of the usual data-centre GPUs, in GB."""
USABLE = 0.92  # of a card: the CUDA context, NCCL and the allocator's fragments take the rest; a rule of thumb
_BUCKET, _MAX_LIVE = 500_000_000, 1_000_000_000  # elements; DeepSpeed's defaults
_WIDTH = {"bf16": 2, "fp32": 4}  # bytes


@dataclass(frozen=True)
class Setting:
    """What decides a worker's memory.

    Attributes:
        precision: `bf16` or `fp32`.
        asked: share of the positions that have a label, where the head computes logits.
        embeddings_beside_adapters: embedding and head are trained whole, everything else by `lora`.
    """

    sizes: Sizes
    precision: str
    zero_stage: int
    workers: int
    micro_batch_size: int
    seq_len: int
    gradient_checkpointing: bool
    asked: float
    gpu: bool
    lora: LoraConfig = field(default_factory=LoraConfig)
    offload: str = "none"
    optimizer: str = "adamw"
    embeddings_beside_adapters: bool = False

    @property
    def trained(self) -> int:
        """Elements that are trained."""
        return self.sizes.trained(self.lora, self.embeddings_beside_adapters)


def checkpoint_bytes(parameters: int) -> int:
    """Bytes of one checkpoint of as many trained parameters: float32 weights and moments, whatever the optimizer."""
    return parameters * 12


def export_bytes(parameters: int, precision: str) -> int:
    """Bytes of the exported weights."""
    return parameters * _WIDTH[precision]


@dataclass(frozen=True)
class Memory:
    """Bytes of one worker.

    Attributes:
        host: in the node's memory instead of the GPU's; no part of `total`.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    host: int = 0

    @property
    def total(self) -> int:
        """The sum, without `host`."""
        return int(sum(asdict(self).values())) - self.host

    def fits(self, card: int) -> bool:
        """Whether it fits a GPU of `card` GB."""
        return self.total <= card * GB * USABLE


def estimate(setting: Setting) -> Memory:
    """The bytes of one worker."""
    width, workers, stage = _WIDTH[setting.precision], setting.workers, setting.zero_stage
    beside = setting.sizes.embeddings if setting.embeddings_beside_adapters else 0
    frozen = setting.sizes.parameters - beside if setting.lora.rank else 0
    weights = (_frozen_bytes(setting, frozen) + width * setting.trained) // (workers if stage >= 3 else 1)
    optimizer = _optimizer_bytes(setting) // workers
    away = {"optimizer": (0, 1), "all": (1, 1)}.get(setting.offload, (0, 0)) if setting.gpu else (0, 0)
    host = away[0] * weights + away[1] * optimizer
    return Memory(
        weights=0 if away[0] else weights,
        gradients=width * setting.trained // (workers if stage >= 2 else 1),
        optimizer=0 if away[1] else optimizer,
        activations=activations(setting),
        buffers=_buffers(setting),
        host=host,
    )


def _optimizer_bytes(setting: Setting) -> int:
    """The float32 weights and the moments of all trained parameters."""
    trained = setting.trained
    moments = {"adamw": 8 * trained, "adamw_8bit": 2 * (trained + 4 * math.ceil(trained / 256))}
    return 4 * trained + moments[setting.optimizer]


def _frozen_bytes(setting: Setting, frozen: int) -> int:
    """Weights under adapters. In nf4 with doubly quantized constants 4.127 bits each; embedding and head stay whole."""
    width, sizes = _WIDTH[setting.precision], setting.sizes
    if setting.lora.quantize == "none" or not frozen:
        return width * frozen
    whole = 0 if setting.embeddings_beside_adapters else sizes.embeddings
    return int((frozen - whole) * 4.127 / 8) + whole * width


def activations(setting: Setting) -> int:
    """Bytes kept between the forward and the backward pass of one micro-batch."""
    sizes, width = setting.sizes, _WIDTH[setting.precision]
    tokens = setting.micro_batch_size * setting.seq_len
    # Packed rows have a mask of their own, which each layer's attention keeps in the activations' type.
    layer = tokens * (sizes.saved_per_token * width + _adapters_per_token(setting)) + tokens * setting.seq_len * width
    kept = tokens * sizes.hidden_size * width
    body = sizes.layers * kept + layer if setting.gradient_checkpointing else sizes.layers * layer
    # Logits in the activations' type, in float32, and their log-softmax in float32.
    head = tokens * setting.asked * (sizes.vocab_size * (width + 8) + sizes.hidden_size * width)
    return int(body + 2 * kept + head)


def _adapters_per_token(setting: Setting) -> int:
    """Bytes a layer's adapters keep for the backward pass, per token."""
    rank, width = setting.lora.rank, _WIDTH[setting.precision]
    if not rank:
        return 0
    # A GPU's dropout keeps a mask of bytes; a CPU's, one as wide as what it masks.
    dropped = width + (1 if setting.gpu else width) if setting.lora.dropout else 0
    return sum(dropped * a + rank * width for a, _ in setting.sizes.adapted(setting.lora))


def _buffers(setting: Setting) -> int:
    parameters, width = setting.sizes.parameters, _WIDTH[setting.precision]
    bucket = _BUCKET if setting.gpu else min(setting.trained, _BUCKET)
    if setting.zero_stage >= 3:
        return width * (bucket + min(parameters, _MAX_LIVE))
    return width * bucket * (2 if setting.gpu else 1)


def suggestion(setting: Setting, batch_size: int, card: int) -> tuple[dict[str, int | bool], Memory] | None:
    """The fewest changes that fit a GPU of `card` GB, as `train` keys, in the order of what they cost.

    Returns:
        None when nothing within this batch size does.
    """
    for changed in _ladder(setting, batch_size):
        found = estimate(changed)
        if found.fits(card):
            names = ("gradient_checkpointing", "micro_batch_size", "zero_stage", "workers")
            return {n: getattr(changed, n) for n in names if getattr(changed, n) != getattr(setting, n)}, found
    return None


def _ladder(setting: Setting, batch_size: int) -> Iterator[Setting]:
    """Ever stronger changes: those that cost least speed first, more GPUs last."""
    at = setting
    yield at
    for stage in range(setting.zero_stage + 1, 4):
        if setting.workers > 1:  # one worker has nobody to share with
            at = replace(at, zero_stage=stage)
            yield at
    if not at.gradient_checkpointing:
        yield replace(setting, gradient_checkpointing=True)
        at = replace(at, gradient_checkpointing=True)
        yield at
    while at.micro_batch_size > 1:
        smaller = max(n for n in range(1, at.micro_batch_size) if at.micro_batch_size % n == 0)
        at = replace(at, micro_batch_size=smaller)
        yield at
    at = replace(at, zero_stage=3)
    while batch_size % (2 * at.workers * at.micro_batch_size) == 0:
        at = replace(at, workers=2 * at.workers)
        yield at
