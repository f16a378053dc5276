"""What each worker runs: restore, step, validate, save, export. All ranks go through it in step."""

from __future__ import annotations

import contextlib
import ctypes
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from kit19_ray.artifacts.metrics_log import MetricsLog
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.errors import TrainError, UserError
from kit19_ray.train import batches, schedule
from kit19_ray.train.engine import Batch, Engine, prepare_batch
from kit19_ray.train.export import export
from kit19_ray.train.spec import Job

_COMPARED_ROWS = 2  # packed rows on which the export is compared with the engine
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def work(settings: dict[str, Any]) -> dict[str, Any]:
    """The train function of every worker.

    Args:
        settings: {"job": Job}.

    Returns:
        What the manifest says of the run, at rank 0. A mistake of the user that all ranks see alike comes back as
        {"error": the UserError}, because raising it would only make Ray start the workers again.
    """
    import ray.train.torch

    job: Job = settings["job"]
    prepare_process(job)
    device = ray.train.torch.get_device() if job.use_gpu else torch.device("cpu")
    if job.use_gpu:
        torch.cuda.set_device(device)
    try:
        run = Run(job, device)
        with run.prefetching():
            run.restore()
            run.train()
            return run.finish()
    except UserError as error:
        return {"error": error}


def prepare_process(job: Job) -> None:
    """The same numbers on every run: fixed threads and kernels; and memory that is kept instead of returned."""
    torch.set_num_threads(max(1, int(job.config.cpus_per_worker)))
    torch.use_deterministic_algorithms(True, warn_only=job.use_gpu)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # every element is written; filling costs a pass
    if not job.use_gpu:
        # Activations come and go with each pass. By default glibc maps and unmaps each large one, and the kernel
        # zeroes its pages anew every time.
        with contextlib.suppress(OSError, AttributeError):  # not glibc: only slower
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


class Run:
    """One worker's share of a run, from the newest checkpoint to the export."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job, self._device = job, device
        self._training = PackedSplit.open(job.data, "train")
        self._validation = PackedSplit.open(job.data, "validation")
        self._engine = Engine(job, device)
        if job.config.model.name is not None and not self._engine.keeps_examples_apart():
            raise TrainError(
                f"train.model.name={job.config.model.name!r}: {type(self._engine.module.model).__name__} lets packed "
                "examples see each other: it does not take their borders from the positions",
                hint="use a model whose attention masks follow position_ids, such as GPT-NeoX, Llama, Mistral or Qwen2",
            )
        self._rank, self._world = self._engine.rank, self._engine.world_size
        self._log: MetricsLog | None = None
        self._saved_step = -1
        # Since the last line, of this process:
        self._steps_timed, self._seconds, self._waited = 0, 0.0, 0.0
        # What a checkpoint carries:
        self._step = 0
        self._loss = torch.zeros((), dtype=torch.float64, device=device)  # over all ranks, since the last line
        self._labels = 0
        self._figures: dict[str, float] = {"seconds": 0.0}

    @contextlib.contextmanager
    def prefetching(self) -> Iterator[None]:
        """Reads the next step's rows while a step is computed, for the length of the block."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            self._pool = pool
            yield

    def restore(self) -> None:
        """Takes up the newest checkpoint, if there is one, and opens the metrics at its step."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                state = self._engine.restore(Path(folder))
            self._step = self._saved_step = int(state["step"])
            self._loss.fill_(state["loss"])
            self._labels, self._figures = int(state["labels"]), state["figures"]
        if self._rank == 0:
            self._log = MetricsLog(self._job.out, self._step)

    def train(self) -> None:
        """Steps to the end of the plan, validating, logging and saving on the way."""
        config, plan = self._job.config, self._job.plan
        if "validation_loss" not in self._figures:
            loss = self._validate()
            self._figures |= {"validation_loss_first": loss, "validation_loss": loss}
            self._write_line({"validation_loss": loss})
        following = self.fetch(self._step)
        while self._step < plan.steps:
            begun = time.perf_counter()
            parts, labels = following.result()
            self._waited += time.perf_counter() - begun
            following = self.fetch(self._step + 1)
            rate = self.take_step(parts, labels)
            validating = self._due(config.eval_every)
            logging = validating or self._due(config.log_every)
            line = self.training_figures(rate) if logging else {}  # waits for the device: the clock stops after it
            self._seconds += time.perf_counter() - begun
            self._steps_timed += 1
            if logging:
                line |= self._pace()
            if validating:
                self._figures["validation_loss"] = line["validation_loss"] = self._validate()
            if logging:
                self._write_line(line)
            if self._due(config.save_every):
                self._save()
        following.cancel()

    def finish(self) -> dict[str, Any]:
        """Exports, and returns the manifest's part."""
        rows = np.arange(min(_COMPARED_ROWS, len(self._validation)))
        files = export(self._engine, self._job, prepare_batch(self._validation, rows, self._device))
        if self._log is not None:
            self._log.flush()
        dist.barrier()
        tokens = self._step * self._job.plan.batch_tokens
        return {
            "files": files,
            "parameters": self._engine.parameters,
            "precision": str(self._engine.dtype).removeprefix("torch."),
            "tokens": tokens,
            "tokens_per_second": tokens / self._figures["seconds"],
            **self._figures,
        }

    def _due(self, every: int) -> bool:
        return self._step % every == 0 or self._step == self._job.plan.steps

    def fetch(self, step: int) -> Future[tuple[list[Batch], int]]:
        """This rank's batches of `step`, and the number of labels of the whole global batch, soon."""
        return self._pool.submit(self._read, step)

    def _read(self, step: int) -> tuple[list[Batch], int]:
        plan = self._job.plan
        rows = batches.global_batch(self._job.seed, step, plan.rows, plan.batch_size)
        mine = batches.rank_rows(rows, self._rank, self._world)
        parts = [
            prepare_batch(self._training, part, self._device)
            for part in batches.micro_batches(mine, plan.micro_batch_size)
        ]
        return parts, int(self._training.num_labels[rows].sum())

    def take_step(self, parts: list[Batch], labels: int) -> float:
        """One optimizer step on what `fetch` gave; returns its learning rate."""
        config, plan = self._job.config, self._job.plan
        rate = schedule.learning_rate(
            self._step, plan.steps, plan.warmup_steps, config.learning_rate, config.min_learning_rate_ratio
        )
        # Whatever a model draws (dropout) follows from seed, step and rank: a resumed run draws the same.
        torch.manual_seed((self._job.seed * 1_000_003 + self._step) * 4099 + self._rank)
        loss = self._engine.step(parts, rate, labels)
        dist.all_reduce(loss)
        self._loss += loss
        self._labels += labels
        self._step += 1
        return rate

    def training_figures(self, rate: float) -> dict[str, Any]:
        """Loss since the last line, learning rate, gradient norm.

        Raises:
            TrainError: the loss is not a number any more.
        """
        loss = float(self._loss) / max(1, self._labels)
        if not math.isfinite(loss):
            raise TrainError(
                f"the loss is {loss} at step {self._step}: the training has diverged",
                hint=f"lower train.learning_rate={self._job.config.learning_rate} or raise train.warmup_ratio; what "
                f"was saved is in {self._job.out}",
            )
        self._loss.zero_()
        self._labels = 0
        self._figures["train_loss"] = loss
        return {"loss": loss, "lr": rate, "grad_norm": self._engine.gradient_norm}

    def _pace(self) -> dict[str, float]:
        """Speed since the last line."""
        plan, seconds = self._job.plan, self._seconds
        pace = {
            "tokens_per_second": self._steps_timed * plan.batch_tokens / seconds,
            "data_wait_seconds": self._waited,
            "eta_seconds": (plan.steps - self._step) * seconds / self._steps_timed,
        }
        self._figures["seconds"] += seconds
        self._steps_timed, self._seconds, self._waited = 0, 0.0, 0.0
        return pace

    def _write_line(self, line: dict[str, Any]) -> None:
        if self._log is None:
            return
        plan = self._job.plan
        place = {
            "step": self._step,
            "steps": plan.steps,
            "epoch": self._step * plan.batch_size / plan.rows,
            "progress": self._step / plan.steps,
        }
        self._log.append(place | line | {"time": time.time()})

    def _validate(self) -> float:
        """Mean loss per label of the whole validation split."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        size = self._job.plan.micro_batch_size
        for rows in batches.validation_passes(len(self._validation), self._rank, self._world, size):
            total += self._engine.loss_sum(prepare_batch(self._validation, rows, self._device))
        dist.all_reduce(total)
        return float(total) / int(self._validation.num_labels.sum())

    def _save(self) -> None:
        """One checkpoint over all ranks, each uploading its own shards."""
        import ray.train

        if self._saved_step == self._step:
            return
        folder = Path(tempfile.mkdtemp(prefix="kit19-checkpoint-"))
        try:
            state = {"step": self._step, "loss": float(self._loss), "labels": self._labels, "figures": self._figures}
            self._engine.save(folder, state)
            checkpoint = ray.train.Checkpoint.from_directory(str(folder))
            ray.train.report({"step": self._step, **self._figures}, checkpoint=checkpoint)
        finally:
            shutil.rmtree(folder)
        self._saved_step = self._step
