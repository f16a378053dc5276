"""What a train config comes to on a given split, worked out and checked before any worker is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kit19_ray.config.schema import TrainConfig
from kit19_ray.errors import TrainError


@dataclass(frozen=True)
class Plan:
    """Sizes of a run.

    Attributes:
        rows: packed rows of the training split.
        steps: optimizer steps of the whole run.
        warmup_steps: the first of them, with a rising learning rate.
        accumulation: forward passes of one worker per optimizer step.
    """

    rows: int
    seq_len: int
    steps: int
    warmup_steps: int
    batch_size: int
    micro_batch_size: int
    workers: int
    accumulation: int

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step over all workers, padding included."""
        return self.batch_size * self.seq_len


@dataclass(frozen=True)
class Job:
    """What the driver hands to every worker.

    Attributes:
        out: URI of the run's prefix.
        data: URI of the data prefix.
        use_gpu: whether each worker has a GPU.
        seed: of the weights from scratch and of the batches.
        vocab_size, eos_token_id, pad_token_id: of the data's tokenizer.
    """

    out: str
    data: str
    config: TrainConfig
    plan: Plan
    use_gpu: bool
    seed: int
    vocab_size: int
    eos_token_id: int
    pad_token_id: int


def make(train: TrainConfig, rows: int, seq_len: int) -> Plan:
    """The plan of `train` on a split of `rows` rows of `seq_len` tokens.

    Raises:
        TrainError: the split is empty, or the batch size does not divide.
    """
    if rows < 1:
        raise TrainError("the training split has no rows", hint="raise data.quota, or check what the data card dropped")
    each = train.workers * train.micro_batch_size
    if train.batch_size % each:
        below, above = train.batch_size // each * each, -(-train.batch_size // each) * each
        near = " or ".join(str(n) for n in (below, above) if n)
        raise TrainError(
            f"train.batch_size={train.batch_size} does not divide by train.workers x train.micro_batch_size = "
            f"{train.workers} x {train.micro_batch_size} = {each}",
            hint=f"set train.batch_size={near}, or another train.micro_batch_size",
        )
    steps = max(1, math.ceil(train.epochs * rows / train.batch_size - 1e-9))
    if train.max_steps is not None:
        steps = min(steps, train.max_steps)
    return Plan(
        rows=rows,
        seq_len=seq_len,
        steps=steps,
        warmup_steps=math.ceil(train.warmup_ratio * steps),
        batch_size=train.batch_size,
        micro_batch_size=train.micro_batch_size,
        workers=train.workers,
        accumulation=train.batch_size // each,
    )
