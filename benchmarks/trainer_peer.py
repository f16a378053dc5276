"""Hugging Face's Trainer with DeepSpeed, as `benchmarks/train_trainer.py` starts it with torch's launcher.

    python -m torch.distributed.run --nproc-per-node 2 benchmarks/trainer_peer.py FOLDER

FOLDER has `spec.pickle`, the same job that our workers get. Between its turns a rank waits, outside of the time that
counts, for a file that says go on.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import train_job
from accelerate import PartialState
from transformers import Trainer, TrainerCallback, TrainingArguments

from kit19_ray.artifacts import packed_shards
from kit19_ray.train import batches
from kit19_ray.train.spec import TrainSpec

_OURS_SECONDS = 300.0


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The packed rows in the order in which our workers read them, as tensors that are ready to be stacked."""

    def __init__(self, spec: TrainSpec, steps: int) -> None:
        plan = spec.plan
        split = packed_shards.PackedSplit.open(spec.data, "train")
        self._columns = {k: torch.from_numpy(v.astype(np.int64)) for k, v in split.rows(range(plan.rows)).items()}
        self._order = [
            int(row)
            for step in range(steps)
            for row in batches.global_batch(spec.seed, step, plan.rows, plan.batch_size)
        ]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return {name: column[self._order[place]] for name, column in self._columns.items()}


class Turns(TrainerCallback):  # type: ignore[misc]
    """Stops after every `steps` optimizer steps until it is this side's turn again."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder, self._steps, self._begun = folder, steps, 0.0
        self.seconds: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Waits for the first turn."""
        self._wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ends a turn when its steps are done."""
        if state.global_step % self._steps:
            return
        self.seconds.append(time.perf_counter() - self._begun)
        if state.is_world_process_zero:
            (self._folder / f"peer-{len(self.seconds)}").touch()
        if state.global_step < state.max_steps:
            self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + _OURS_SECONDS
        while not (self._folder / f"ours-{len(self.seconds) + 1}").exists():
            if time.monotonic() > until:
                raise TimeoutError("the other side is gone")
            time.sleep(0.02)
        self._begun = time.perf_counter()


class Recorded(Trainer):  # type: ignore[misc]
    """Keeps what `training_step` returns; nothing is read of it before the end."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.losses: list[torch.Tensor] = []

    def training_step(self, *args: Any, **more: Any) -> torch.Tensor:
        """As it is."""
        loss: torch.Tensor = super().training_step(*args, **more)
        self.losses.append(loss)
        return loss


def arguments(spec: TrainSpec, folder: Path, steps: int) -> TrainingArguments:
    """What a user would write for the same training: no logging, saving or validation, all else at its default."""
    train, plan = spec.config, spec.plan
    return TrainingArguments(
        output_dir=str(folder / "peer"),
        max_steps=steps,
        per_device_train_batch_size=plan.micro_batch_size,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=train.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=train.weight_decay,
        adam_beta1=train.beta1,
        adam_beta2=train.beta2,
        adam_epsilon=train.epsilon,
        max_grad_norm=train.clip_norm,
        optim="adamw_torch_fused",
        train_sampling_strategy="sequential",  # `Rows` has the order already
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=spec.seed,
        # Without it the Trainer asks DeepSpeed for its default backend, and takes a CPU's gloo for no group at all.
        accelerator_config={"use_configured_state": True},
        deepspeed={
            "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": train.zero_stage, "contiguous_gradients": True, "overlap_comm": False},
        },
    )


def main(folder: Path) -> None:
    """Trains by turns, and writes each turn's seconds and each step's loss."""
    spec, rounds, steps = pickle.loads((folder / "spec.pickle").read_bytes())
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="gloo")
    whole = rounds * steps
    turns = Turns(folder, steps)
    trainer = Recorded(
        model=train_job.build_model(spec.config, spec.plan.seq_len),
        args=arguments(spec, folder, whole),
        train_dataset=Rows(spec, whole),
        callbacks=[turns],
    )
    trainer.train()
    # Each pass gave the sum of its labels' losses over the global batch's labels, times the ranks.
    losses = torch.stack(trainer.losses).reshape(whole, -1).sum(dim=1)
    torch.distributed.all_reduce(losses)
    losses /= torch.distributed.get_world_size()
    if trainer.is_world_process_zero():
        (folder / "peer.json").write_text(
            json.dumps(
                {
                    "seconds": turns.seconds,
                    "losses": losses.tolist(),
                    "distributed": str(trainer.accelerator.distributed_type),
                    "engine": type(trainer.deepspeed.optimizer).__name__,
                    "threads": torch.get_num_threads(),
                    "ranks": torch.distributed.get_world_size(),
                }
            )
        )


if __name__ == "__main__" and len(sys.argv) > 1:  # `make bench` runs every file of this folder
    main(Path(sys.argv[1]))
