"""What a train config comes to on a given split, worked out and checked before any worker is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kit19_ray.config.schema import TrainConfig
from kit19_ray.errors import TrainError

EXPORT_FOLDER, ADAPTER_FOLDER = "export", "adapter"  # in the run's prefix
EVALUATIONS = 10  # validation losses of a run whose train.eval_every is not set


@dataclass(frozen=True)
class TrainPlan:
    """Sizes of a run, the same for any number of workers.

    Attributes:
        rows: packed rows of the training split.
        steps: optimizer steps of the whole run.
        warmup_steps: the first of them, with a rising learning rate.
        decay_steps: the last of them, with the decay of the wsd schedule.
        eval_every: steps between validation losses.
        score_every: steps between checkpoints that are scored; None where none are.
    """

    rows: int
    seq_len: int
    steps: int
    warmup_steps: int
    decay_steps: int
    batch_size: int
    micro_batch_size: int
    workers: int
    eval_every: int
    score_every: int | None = None

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step over all workers, padding included."""
        return self.batch_size * self.seq_len

    @property
    def scored_steps(self) -> list[int]:
        """Steps whose checkpoints are scored, in order: the last step is one of them."""
        if self.score_every is None:
            return []
        return [*range(self.score_every, self.steps, self.score_every), self.steps]

    @property
    def accumulation(self) -> int:
        """Forward passes per optimizer step of each of `workers` workers."""
        return accumulation(self.batch_size, self.micro_batch_size, self.workers)


@dataclass(frozen=True)
class TrainSpec:
    """What the driver hands to every worker.

    Attributes:
        out: URI of the run's prefix.
        data: URI of the data prefix.
        use_gpu: whether each worker has a GPU.
        seed: of the weights from scratch and of the batches.
        vocab_size, eos_token_id, pad_token_id: of the data's tokenizer.
        prompt: name of the wrapper the data were rendered with.
    """

    out: str
    data: str
    config: TrainConfig
    plan: TrainPlan
    use_gpu: bool
    seed: int
    vocab_size: int
    eos_token_id: int
    pad_token_id: int
    prompt: str = "plain"


def accumulation(batch_size: int, micro_batch_size: int, workers: int) -> int:
    """Forward passes per step of each worker: of the one with most rows, where the batch does not divide."""
    return math.ceil(math.ceil(batch_size / workers) / micro_batch_size)


def make(train: TrainConfig, rows: int, seq_len: int) -> TrainPlan:
    """The plan of `train` on a split of `rows` rows of `seq_len` tokens.

    Raises:
        TrainError: the split is empty, there are more workers than rows of a batch, or nothing would be saved.
    """
    if rows < 1:
        raise TrainError("the training split has no rows", hint="raise data.quota, or check what the data card dropped")
    if train.workers > train.batch_size:
        raise TrainError(
            f"train.workers={train.workers} is more than train.batch_size={train.batch_size}: some would have no row",
            hint=f"raise train.batch_size, or lower train.workers to {train.batch_size}",
        )
    steps = max(1, math.ceil(train.epochs * rows / train.batch_size - 1e-9))
    if train.max_steps is not None:
        steps = min(steps, train.max_steps)
    _check_saves(train, steps)
    return TrainPlan(
        rows=rows,
        seq_len=seq_len,
        steps=steps,
        warmup_steps=math.ceil(train.warmup_ratio * steps),
        decay_steps=math.ceil(train.decay_ratio * steps),
        batch_size=train.batch_size,
        micro_batch_size=train.micro_batch_size,
        workers=train.workers,
        eval_every=train.eval_every or max(1, steps // EVALUATIONS),
        score_every=(train.best.every or max(1, steps // EVALUATIONS)) if train.best.score else None,
    )


def _check_saves(train: TrainConfig, steps: int) -> None:
    """Refuses a run of which a crash at any moment would leave nothing."""
    if train.save_minutes is not None or steps == 1:
        return
    if train.save_every is None or train.save_every >= steps:
        raise TrainError(
            f"train.save_every={train.save_every} and train.save_minutes=null save nothing of {steps} steps before the "
            "last: a crash would lose the whole run",
            hint="set train.save_minutes=10, or a train.save_every below the steps",
        )
