"""What each worker runs: restore, step, validate, save, export. All ranks go through it in step."""

from __future__ import annotations

import contextlib
import ctypes
import math
import secrets
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from kit19_ray.artifacts import checkpoint
from kit19_ray.artifacts.checkpoint import CorruptCheckpoint, Folder, Index
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.errors import StorageError, TrainError, UserError
from kit19_ray.lm import cuda, pretrained
from kit19_ray.train import batches, checkpoint_reader, model_card, samples, schedule, trackers
from kit19_ray.train.agreement import AgreedError, Agreement
from kit19_ray.train.checkpoint_writer import CheckpointWriter
from kit19_ray.train.engine import Engine, load_model
from kit19_ray.train.export import export
from kit19_ray.train.flags import DRAINING, FAILED, SAVE, STOP
from kit19_ray.train.guard import Guard
from kit19_ray.train.inputs import Batch, prepare_batch
from kit19_ray.train.interruptions import Interruptions
from kit19_ray.train.metrics_writer import MetricsWriter
from kit19_ray.train.pace import Pace
from kit19_ray.train.spec import TrainSpec, accumulation
from kit19_ray.train.watchdog import Watchdog

_COMPARED_ROWS = 2  # packed rows on which the export is compared with the engine
_EXPORT_SECONDS = 4 * 3600.0  # the others wait for rank 0 to write and compare it
_DRAINING_SECONDS = 30.0  # between checkpoints while a node of the run is about to go
_LARGEST_ON_CPU = 500_000_000  # parameters trained without a GPU that nobody has said no to
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def train_loop_per_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """The train function of every worker, as Ray Train calls it.

    Args:
        settings: {"spec": TrainSpec}.

    Returns:
        What the manifest says of the run, at rank 0; {"stopped": step} when it was asked to stop. A mistake of the user
        that all ranks know of comes back as {"error": the UserError}, because raising it would only make Ray start the
        workers again.
    """
    import ray.train.torch

    spec: TrainSpec = settings["spec"]
    prepare_process(spec)
    if spec.use_gpu and (problem := cuda.problem()):
        raise TrainError(problem)  # this node's alone, maybe: the others would wait for a rank that merely returns
    device = ray.train.torch.get_device() if spec.use_gpu else torch.device("cpu")
    if spec.use_gpu:
        torch.cuda.set_device(device)
    agreement = Agreement(_address(), 60 * spec.config.timeout_minutes)
    try:
        with Trainer(spec, device, agreement) as trainer:
            return trainer.run()
    except AgreedError as agreed:
        # A store that was out may be back when the workers start again; a local disk that lacks a file lacks it then.
        passing = isinstance(agreed.error, StorageError) and spec.out.startswith("s3://")
        if isinstance(agreed.error, UserError) and agreed.everywhere and not passing:
            return {"error": agreed.error}
        if isinstance(agreed.error, UserError):
            raise agreed.error from None
        raise


def _address() -> str:
    import ray.util

    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


def prepare_process(spec: TrainSpec) -> None:
    """The same numbers on every run: fixed threads and kernels; and memory that is kept instead of returned."""
    torch.set_num_threads(max(1, int(spec.config.cpus_per_worker)))
    # Half the promise, warnings where there is no such kernel, is slow and repeats nothing: all of it or none.
    torch.use_deterministic_algorithms(spec.config.deterministic or not spec.use_gpu)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # every element is written; filling costs a pass
    if not spec.use_gpu:
        # Activations come and go with each pass. By default glibc maps and unmaps each large one, and the kernel
        # zeroes its pages anew every time.
        with contextlib.suppress(OSError, AttributeError):  # not glibc: only slower
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


class StepInput(NamedTuple):
    """What a step is computed on.

    Attributes:
        passes: this rank's forward passes.
        labels: of the whole global batch, over all ranks.
        rows: of the whole global batch.
        flops: of this rank's part.
    """

    passes: list[Batch]
    labels: int
    rows: batches.Int64
    flops: float


class Trainer:
    """One worker's share of a run, from the newest checkpoint to the export."""

    def __init__(self, spec: TrainSpec, device: torch.device, agreement: Agreement) -> None:
        self._spec, self._device, self._agreement = spec, device, agreement
        self._rank, self._world = agreement.rank, agreement.world_size
        self._passes = accumulation(spec.plan.batch_size, spec.plan.micro_batch_size, self._world)
        self._attempt: str = agreement.broadcast(secrets.token_hex(3))
        self._watchdog = Watchdog(spec.out, self._rank, 60 * spec.config.hang_minutes)
        self._interruptions = Interruptions(spec.out, self._rank)
        self._writer: MetricsWriter | None = None
        self._untold: list[str] = []
        self._checkpoints = CheckpointWriter(
            spec.out, self._attempt, self._rank, self._world, self._say, spec.config.keep_checkpoints,
            spec.config.keep_best,
        )  # fmt: skip
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._save_started, self._save_step, self._save_owed = time.monotonic(), -1, False
        # What a checkpoint carries:
        self._step = 0
        self._loss, self._labels = 0.0, 0  # of all ranks, since the last line
        self._guard = Guard(spec.config)
        self._figures: dict[str, float] = {"seconds": 0.0}

    def __enter__(self) -> Trainer:
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.close()
        self._interruptions.close()
        self._checkpoints.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._writer is not None:
            self._writer.close(30)

    @contextlib.contextmanager
    def _phase(self, name: str, seconds: float | None = None) -> Iterator[None]:
        """A phase that one rank can fail alone, and that the watchdog gives its time."""
        allowed = seconds or 60 * self._spec.config.timeout_minutes
        self._watchdog.progress(name, allowed)
        if self._writer is not None:
            self._writer.status(name, self._step)
        with self._agreement.phase(name, allowed):
            yield
        self._watchdog.progress(name, allowed)

    def run(self) -> dict[str, Any]:
        """All of it; see `train_loop_per_worker` for what it returns."""
        self.prepare()
        if not self.train():
            return {"stopped": self._step}
        return self.finish()

    def prepare(self) -> None:
        """Opens the data, loads the model, takes up the newest checkpoint."""
        spec = self._spec
        with self._phase("opening the data"):
            self._training = PackedSplit.open(spec.data, "train")
            self._validation = PackedSplit.open(spec.data, "validation")
        with self._phase("finding the model"):  # on this node; before any rank waits for another
            if spec.config.model.name is not None:
                pretrained.resolve(spec.config.model.name)
        with self._phase("loading the model"):
            model = load_model(spec)
        with self._phase("sharding the model"):
            self._engine = Engine(spec, self._device, model)
            if spec.config.use_gpu is None and not spec.use_gpu and self._engine.parameters > _LARGEST_ON_CPU:
                raise TrainError(
                    f"the cluster has no GPU, and the model has {self._engine.parameters / 1e9:.1f} billion parameters",
                    hint="set train.use_gpu=true to wait for GPUs, or false to train on CPUs all the same",
                )
        self._pace = Pace(spec, self._engine, self._device)
        self._restore()
        if self._rank == 0:
            config = spec.config.identity()
            self._writer = MetricsWriter(
                spec.out,
                self._step,
                lambda: trackers.make(list(spec.config.trackers), spec.out, self._attempt, config),
                spec.data,
            )
            for text in self._untold:
                self._say(text)
            if self._step:
                self._say(f"goes on at step {self._step} with {self._world} workers")
        self._interruptions.start()

    def _say(self, text: str) -> None:
        """What the user should know, into events.jsonl; from the other ranks into the worker's log."""
        if self._writer is not None:
            self._writer.event(text, self._step)
        else:
            print(f"train: {text}", file=sys.stderr, flush=True)  # noqa: T201

    def _restore(self) -> None:
        """Takes up the furthest checkpoint that every rank can read."""
        found: list[tuple[Folder, Index]] = []
        broken: list[str] = []
        with self._phase("looking for checkpoints"):
            if self._rank == 0:
                found, broken = self._candidates()
        for at, index in self._agreement.broadcast(found):
            reason, values = "", None
            with self._phase("reading a checkpoint"):
                pieces = self._engine.pieces()
                try:
                    values = checkpoint_reader.read(self._spec.out, at, index, pieces)
                except CorruptCheckpoint as error:
                    reason = str(error)
            reasons = [text for text in self._agreement.gather(reason) if text]
            if not reasons and values is not None:
                with self._phase("taking up a checkpoint"):
                    checkpoint_reader.write(values, pieces)
                    self._take_up(index)
                break
            broken.append(f"the checkpoint of step {at.step} is left out and deleted: {reasons[0]}")
            if self._rank == 0:
                with contextlib.suppress(StorageError):
                    checkpoint.discard(self._spec.out, at)
        self._untold = broken

    def _candidates(self) -> tuple[list[tuple[Folder, Index]], list[str]]:
        found, broken = [], []
        for at in checkpoint.folders(self._spec.out):
            try:
                index = checkpoint.read_index(self._spec.out, at)
            except CorruptCheckpoint as error:
                broken.append(f"the checkpoint of step {at.step} is left out: {error}")
                continue
            if index is not None:
                found.append((at, index))
        return found, broken

    def _take_up(self, index: Index) -> None:
        state = index["state"]
        self._step = self._save_step = index["step"]
        self._loss, self._labels, self._figures = state["loss"], state["labels"], state["figures"]
        self._guard.restore(state["guard"])
        self._engine.finish_restore(self._step - self._guard.skipped)

    def train(self) -> bool:
        """Steps to the end of the plan, validating, logging and saving on the way.

        Returns:
            False when it was asked to stop before.
        """
        config, plan = self._spec.config, self._spec.plan
        self._save_started = time.monotonic()
        if "validation_loss" not in self._figures:
            loss = self._validate()
            self._figures |= {"validation_loss_first": loss, "validation_loss": loss}
            self._write_line({"validation_loss": loss})
        following = self.fetch(self._step)
        while self._step < plan.steps:
            self._watchdog.progress("step")
            self._status("step")
            begun = time.perf_counter()
            read = self._next(following)
            waited = time.perf_counter() - begun
            if read is None:
                return False
            following = self.fetch(self._step + 1)
            begun = time.perf_counter()
            rate = self.train_step(read)
            self._pace.step(read.labels, read.flops, time.perf_counter() - begun + waited, waited)
            validating = self._due(plan.eval_every)
            if not validating and not self._due(config.log_every):
                continue
            line = self.training_figures(rate)
            self._figures["seconds"] += self._pace.seconds
            line |= self._pace.figures(plan.steps - self._step)
            if validating:
                begun = time.perf_counter()
                self._figures["validation_loss"] = line["validation_loss"] = self._validate()
                line["validate_seconds"] = time.perf_counter() - begun
            self._write_line(line)
        following.cancel()
        return True

    def _next(self, following: Future[StepInput]) -> StepInput | None:
        """The next step's input, once the ranks have agreed that all have theirs; saves on the way if it is time.

        Returns:
            None when the run is asked to stop, and is saved.
        """
        error: Exception | None = None
        read: StepInput | None = None
        try:
            read = following.result()
            self._check_checkpoints()
        except Exception as caught:  # noqa: BLE001 - agreed on below
            error = caught
        mine = self._interruptions.flags | (SAVE if self._rank == 0 and self._save_is_due() else 0)
        if self._checkpoints.busy and not mine & STOP:
            mine &= ~SAVE  # it comes when the one on its way is there: nobody waits for a store
        flags = self._agreement.flags(mine | (FAILED if error is not None else 0))
        if flags & FAILED:
            with self._phase("reading a batch, or saving"):
                if error is not None:
                    raise error
        if flags & SAVE:
            self._save()
        if flags & STOP:
            with self._phase("saving before a stop", 60 * self._spec.config.save_grace_minutes):
                self._checkpoints.wait()
            return None
        return read

    def _check_checkpoints(self) -> None:
        """Fails when no checkpoint has got through for longer than the config allows."""
        since, most = self._checkpoints.failing_since, 60 * self._spec.config.save_grace_minutes
        if since is not None and time.monotonic() - since > most:
            raise TrainError(
                f"no checkpoint has got through to {self._spec.out} for {most / 60:.0f} minutes",
                hint="see that the store is there, then run the same command again; train.save_grace_minutes is how "
                "long it may be away",
            )

    def _save_is_due(self) -> bool:
        config = self._spec.config
        if self._step and self._step != self._save_step and config.save_every and self._step % config.save_every == 0:
            self._save_owed = True
        minutes = config.save_minutes
        if self._interruptions.flags & DRAINING:
            minutes = min(minutes or 1e9, _DRAINING_SECONDS / 60)
        by_time = minutes is not None and time.monotonic() - self._save_started >= 60 * minutes
        return (by_time or self._save_owed) and self._step > max(0, self._save_step) and not self._checkpoints.busy

    def _save(self) -> None:
        """Begins a checkpoint; the training goes on when the state is copied."""
        begun = time.perf_counter()
        self._interruptions.answered()
        self._save_owed = False
        if self._step == self._save_step or not self._step:
            return
        self._status("saving")
        pieces = self._engine.pieces()
        numels: dict[str, int] = {}
        for part in self._agreement.gather({piece.name: piece.numel for piece in pieces}):
            numels |= part
        index: Index = {
            "format": checkpoint.FORMAT,
            "step": self._step,
            "time": time.time(),
            "validation_loss": self._figures.get("validation_loss"),
            "workers": self._world,
            "zero_stage": self._spec.config.zero_stage,
            "state": {
                "loss": self._loss,
                "labels": self._labels,
                "figures": {name: value for name, value in self._figures.items() if math.isfinite(value)},
                "guard": self._guard.state(),
            },
            "parameters": numels,
            "block": checkpoint.BLOCK,
            "shards": [],
        }
        self._checkpoints.start(pieces, index)
        self._save_started, self._save_step = time.monotonic(), self._step
        self._pace.saved(time.perf_counter() - begun)

    def finish(self) -> dict[str, Any]:
        """Exports, and returns the manifest's part."""
        tokens = self._step * self._spec.plan.batch_tokens
        figures: dict[str, Any] = {
            "parameters": self._engine.parameters,
            "trained_parameters": self._engine.trained_parameters,
            "precision": str(self._engine.dtype).removeprefix("torch."),
            "tokens": tokens,
            "tokens_per_second": tokens / max(1e-9, self._figures["seconds"]),
            "skipped_steps": self._guard.skipped,
            "provenance": model_card.provenance(),
            **self._figures,
        }
        files: dict[str, str] | None = None
        with self._phase("exporting", _EXPORT_SECONDS):
            rows = np.arange(min(_COMPARED_ROWS, len(self._validation)))
            batch = prepare_batch(self._validation, rows, self._device, self._engine.flat)
            files = export(self._engine, self._spec, batch, figures)
        return figures | {"files": files}

    def _due(self, every: int) -> bool:
        return self._step % every == 0 or self._step == self._spec.plan.steps

    def fetch(self, step: int) -> Future[StepInput]:
        """This rank's part of `step`, soon: it is read while the step before is computed."""
        return self._pool.submit(self._read, step)

    def _read(self, step: int) -> StepInput:
        plan = self._spec.plan
        rows = batches.global_batch(self._spec.seed, step, plan.rows, plan.batch_size)
        mine = batches.rank_rows(rows, self._rank, self._world)
        passes = [
            prepare_batch(self._training, part, self._device, self._engine.flat)
            for part in batches.micro_batches(mine, plan.micro_batch_size, self._passes)
        ]
        flops = self._pace.flops(self._training, mine)
        return StepInput(passes, int(self._training.num_labels[rows].sum()), rows, flops)

    def train_step(self, read: StepInput) -> float:
        """One optimizer step; returns its learning rate."""
        rate = schedule.learning_rate(self._step, self._spec.plan, self._spec.config)
        # Whatever a model draws (dropout) follows from seed, step and rank: a resumed run draws the same.
        torch.manual_seed((self._spec.seed * 1_000_003 + self._step) * 4099 + self._rank)
        loss = self._engine.step(read.passes, rate, read.labels)
        dist.all_reduce(loss)
        self._step += 1
        # Reading the loss waits for the step; DeepSpeed has waited for the gradient's norm already.
        total, norm = float(loss), self._engine.gradient_norm
        said = self._guard.look(self._step, self._engine.step_applied, total, norm, read.rows)
        for text in said:
            self._say(text) if self._rank == 0 else None
        if self._guard.error is not None:  # every rank saw the same figures
            raise AgreedError(0, "training", self._guard.error, everywhere=True)
        if self._guard.counted:
            self._loss += total
            self._labels += read.labels
        return rate

    def training_figures(self, rate: float) -> dict[str, Any]:
        """Loss since the last line, learning rate, gradient norm, steps left out."""
        loss = self._loss / self._labels if self._labels else float("nan")
        self._loss, self._labels = 0.0, 0
        self._figures["train_loss"] = loss
        return {
            "loss": loss,
            "lr": rate,
            "grad_norm": self._guard.norm,
            "skipped_steps": self._guard.skipped,
            "workers": self._world,
        }

    def _status(self, phase: str) -> None:
        if self._writer is not None:
            self._writer.status(phase, self._step)

    def _write_line(self, line: dict[str, Any]) -> None:
        if self._writer is None:
            return
        plan = self._spec.plan
        place = {
            "step": self._step,
            "steps": plan.steps,
            "epoch": self._step * plan.batch_size / plan.rows,
            "progress": self._step / plan.steps,
        }
        self._writer.line(place | line | {"time": time.time()})

    def _validate(self) -> float:
        """Mean loss per label of the whole validation split.

        Raises:
            AgreedError: it is not a number, so the weights are worth nothing.
        """
        self._watchdog.progress("validating", 60 * self._spec.config.timeout_minutes)
        self._status("validating")
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        size = self._spec.plan.micro_batch_size
        for rows in batches.validation_passes(len(self._validation), self._rank, self._world, size):
            self._watchdog.progress("validating", 60 * self._spec.config.timeout_minutes)
            total += self._engine.loss_sum(prepare_batch(self._validation, rows, self._device, self._engine.flat))
        dist.all_reduce(total)
        loss = float(total) / int(self._validation.num_labels.sum())
        if not np.isfinite(loss):
            raise AgreedError(0, "validating", self._guard.diverged(f"validation loss is {loss}"), everywhere=True)
        self._answer()
        return loss

    def _answer(self) -> None:
        """Answers a few validation prompts, into samples.jsonl."""
        for prompt in samples.prompts(self._validation, self._spec.config.samples):
            tokens = samples.answer(self._engine, prompt, self._spec.eos_token_id)
            if self._writer is not None:
                self._writer.sample(self._step, prompt, tokens)
