"""One worker's run: restore, step, validate, save, export. All ranks go through it in step."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import torch
import torch.distributed as dist

from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.artifacts.stage_manifests import Stopped, TrainOutput
from kit19_ray.errors import TrainError
from kit19_ray.lm import pretrained
from kit19_ray.train import ending, model_card, schedule
from kit19_ray.train.agreement import AgreedError, Agreement
from kit19_ray.train.candidates import CheckpointCandidates
from kit19_ray.train.engine import TrainEngine, load_model
from kit19_ray.train.export import export
from kit19_ray.train.flags import DRAINING, ENOUGH, FAILED, REPORT, SAVE, STOP
from kit19_ray.train.interruptions import Interruptions
from kit19_ray.train.pace import Pace
from kit19_ray.train.restore import restore
from kit19_ray.train.run_log import RunLog
from kit19_ray.train.saver import Saver
from kit19_ray.train.spec import TrainSpec
from kit19_ray.train.step_input import StepInput, StepReader
from kit19_ray.train.train_state import TrainState
from kit19_ray.train.validator import Validator
from kit19_ray.train.watchdog import Watchdog

_COMPARED_ROWS = 2  # packed rows on which the export is compared with the engine
_EXPORT_SECONDS = 4 * 3600.0  # the others wait for rank 0 to write and compare it
_LARGEST_ON_CPU = 500_000_000  # parameters trained without a GPU that nobody has said no to


class Trainer:
    """One worker's share of a run, from the newest checkpoint to the export."""

    def __init__(self, spec: TrainSpec, device: torch.device, agreement: Agreement) -> None:
        self._spec, self._device, self._agreement = spec, device, agreement
        self._rank, self._world = agreement.rank, agreement.world_size
        self.state = TrainState(spec.config)
        self._enough = False  # the best checkpoint is known before the last step
        attempt: str = agreement.broadcast(secrets.token_hex(3))
        self._watchdog = Watchdog(spec.out, self._rank, 60 * spec.config.hang_minutes)
        self._interruptions = Interruptions(spec.out, self._rank)
        self._log = RunLog(spec, self.state, self._rank, attempt)
        self._saver = Saver(spec, self.state, agreement, attempt, self._log.say)
        self._log.figures = self._saver.figures
        self._candidates = CheckpointCandidates(spec, self._rank, self._log.say, self._log.line)
        self._saver.spare(self._candidates.spared)
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Trainer:
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.close()
        self._interruptions.close()
        self._saver.close()
        self._closing.close()
        self._log.close()

    @contextlib.contextmanager
    def _phase(self, name: str, seconds: float | None = None) -> Iterator[None]:
        """A phase that one rank can fail alone, and that the watchdog gives its time."""
        allowed = seconds or 60 * self._spec.config.timeout_minutes
        self._watchdog.progress(name, allowed)
        self._log.status(name)
        with self._agreement.phase(name, allowed):
            yield
        self._watchdog.progress(name, allowed)

    def run(self) -> TrainOutput | Stopped:
        """All of it; see `train_loop_per_worker` for what it returns."""
        self.prepare()
        if not self.train() or not self._settle():
            return {"stopped": self.state.step}
        return self.finish()

    def prepare(self) -> None:
        """Opens the data, loads the model, takes up the newest checkpoint."""
        spec = self._spec
        with self._phase("opening the data"):
            self._training = PackedSplit.open(spec.data, "train")
            self._validator = Validator(spec, self.state, self._log, self._watchdog)
        with self._phase("finding the model"):  # on this node; before any rank waits for another
            # Under ZeRO-3 rank 0 reads the weights and sends each its shard: other nodes fetch none.
            if spec.config.model.name is not None and (self._rank == 0 or spec.config.zero_stage != 3):
                pretrained.resolve(spec.config.model.name)
        with self._phase("loading the model"):
            model = load_model(spec)
        with self._phase("sharding the model"):
            self._engine = TrainEngine(spec, self._device, model)
            self._precision = str(self._engine.dtype).removeprefix("torch.")
            if spec.config.use_gpu is None and not spec.use_gpu and self._engine.parameters > _LARGEST_ON_CPU:
                raise TrainError(
                    f"the cluster has no GPU, and the model has {self._engine.parameters / 1e9:.1f} billion parameters",
                    hint="set train.use_gpu=true to wait for GPUs, or false to train on CPUs all the same",
                )
        self._pace = Pace(spec, self._engine, self._device)
        self._reader = StepReader(spec, self._training, self._engine, self._pace, self._rank, self._device)
        self._closing.callback(self._reader.close)
        untold = restore(spec.out, self._engine, self.state, self._agreement, self._phase)
        self._log.open()
        if self.state.step:
            untold.append(f"goes on at step {self.state.step} with {self._world} workers")
        self._say_once(untold)
        self._interruptions.start()

    def _say_once(self, texts: list[str]) -> None:
        """What all ranks would say, or rank 0 alone."""
        for text in texts if self._rank == 0 else ():
            self._log.say(text)

    def train(self) -> bool:
        """Steps to the end of the plan, validating, logging and saving on the way.

        Returns:
            False when it was asked to stop before.
        """
        config, plan = self._spec.config, self._spec.plan
        self._saver.begin(restored=self.state.step > 0)
        with self._phase("looking for scores"):
            self._candidates.begin(self.state.step)
        if "validation_loss" not in self.state.figures:
            line = self._validator.run(self._engine, self._device)
            self.state.figures["validation_loss_first"] = self.state.figures["validation_loss"]
            self._log.line(line)
        following = self.fetch(self.state.step)
        while self.state.step < plan.steps:
            self._watchdog.progress("step")
            self._log.status("step")
            begun = time.perf_counter()
            read = self._next(following)
            waited = time.perf_counter() - begun
            if read is None:
                return self._enough
            following = self.fetch(self.state.step + 1)
            begun = time.perf_counter()
            rate = self.train_step(read)
            self._pace.step(read.labels, read.flops, time.perf_counter() - begun + waited, waited)
            validating = self._due(plan.eval_every) or self._candidates.due(self.state.step)
            if not validating and not self._due(config.log_every):
                continue
            line = self.training_figures(rate)
            self.state.figures["seconds"] += self._pace.seconds
            line |= self._pace.figures(plan.steps - self.state.step)
            if validating:
                begun = time.perf_counter()
                line |= {**self._validator.run(self._engine, self._device)}
                line["validate_seconds"] = time.perf_counter() - begun
            self._log.line(line)
            if validating:
                self._candidates.validated(self.state.step, self.state.figures["validation_loss"])
        following.cancel()
        return True

    def _next(self, following: Future[StepInput]) -> StepInput | None:
        """The next step's input, once the ranks have agreed that all have theirs; saves on the way if it is time.

        Returns:
            None when the run is asked to stop, and is saved; or when the best checkpoint is known, `_enough`.
        """
        error: Exception | None = None
        read: StepInput | None = None
        try:
            read = following.result()
            self._saver.check()
        except Exception as caught:  # noqa: BLE001 - agreed on below
            error = caught
        mine = self._interruptions.flags
        if self._rank == 0 and self._saver.is_due(bool(mine & DRAINING)):
            mine |= SAVE
        if self._saver.busy and not mine & STOP:
            mine &= ~SAVE  # it comes when the one on its way is there: nobody waits for a store
        mine |= self._candidates.flags(self._saver.saved_step)
        flags = self._agreement.flags(mine | (FAILED if error is not None else 0))
        if flags & FAILED:
            with self._phase("reading a batch, or saving"):
                if error is not None:
                    raise error
        if self._candidates.due(self.state.step):
            self._save_to_score()
        elif flags & SAVE:
            self._save()
        if flags & REPORT:
            self._candidates.report(self._precision)
        if flags & ENOUGH:
            self._enough = True
            return None
        if flags & STOP:
            with self._phase("saving before a stop", 60 * self._spec.config.save_grace_minutes):
                self._saver.wait()
            return None
        return read

    def _save(self) -> None:
        """Begins a checkpoint; the training goes on when the state is copied."""
        begun = time.perf_counter()
        self._interruptions.answered()
        if self._saver.has_news():
            self._log.status("saving")
            self._saver.save(self._engine)
            self._pace.saved(time.perf_counter() - begun)

    def _save_to_score(self) -> None:
        """As `_save`, and waits for the one before: which steps are scored does not depend on the store."""
        with self._phase("saving a checkpoint to score", 60 * self._spec.config.save_grace_minutes):
            self._save()

    def _settle(self) -> bool:
        """Waits for the scores that are missing; returns False when it was asked to stop before."""
        if self._enough or not self._candidates.due(self.state.step):
            return True
        if self._spec.config.best.task is not None:
            self._save_to_score()

        def look() -> int:
            self._watchdog.progress("waiting for scores", 60 * self._spec.config.timeout_minutes)
            return self._interruptions.flags

        self._log.status("waiting for scores")
        return ending.wait_for_scores(self._candidates, self._saver, self._agreement, self._precision, look)

    def finish(self) -> TrainOutput:
        """Exports, and returns the manifest's part."""
        tokens = self.state.step * self._spec.plan.batch_tokens
        chosen: Any = {}
        if self._spec.plan.scored_steps:
            with self._phase("saving", 60 * self._spec.config.save_grace_minutes):
                self._saver.wait()
            best, said = ending.take_best(
                self._spec, self._engine, self.state, self._candidates, self._agreement, self._phase
            )
            self._say_once(said)
            chosen = {"best": best}
        figures: Any = {
            "parameters": self._engine.parameters,
            "trained_parameters": self._engine.trained_parameters,
            "precision": self._precision,
            "tokens": tokens,
            "tokens_per_second": tokens / max(1e-9, self.state.figures["seconds"]),
            "skipped_steps": self.state.guard.skipped,
            "provenance": model_card.provenance(),
            **self.state.figures,
            **chosen,
        }
        files: dict[str, str] | None = None
        with self._phase("exporting", _EXPORT_SECONDS):
            rows = self._validator.first_rows(_COMPARED_ROWS, self._engine, self._device)
            files = export(self._engine, self._spec, rows, figures)
        whole: TrainOutput = figures | {"files": files}
        return whole

    def _due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self._spec.plan.steps

    def fetch(self, step: int) -> Future[StepInput]:
        """This rank's part of `step`, soon: it is read while the step before is computed."""
        return self._reader.fetch(step)

    def train_step(self, read: StepInput) -> float:
        """One optimizer step; returns its learning rate."""
        rate = schedule.learning_rate(self.state.step, self._spec.plan, self._spec.config)
        # Whatever a model draws (dropout) follows from seed, step and rank: a resumed run draws the same.
        torch.manual_seed((self._spec.seed * 1_000_003 + self.state.step) * 4099 + self._rank)
        loss = self._engine.step(read.passes, rate, read.labels)
        dist.all_reduce(loss)
        self.state.step += 1
        # Reading the loss waits for the step; DeepSpeed has waited for the gradient's norm already.
        total, norm = float(loss), self._engine.gradient_norm
        said = self.state.guard.look(self.state.step, self._engine.step_applied, total, norm, read.rows)
        self._say_once(said)
        if self.state.guard.error is not None:  # every rank saw the same figures
            raise AgreedError(0, "training", self.state.guard.error, everywhere=True)
        if self.state.guard.counted:
            self.state.loss += total
            self.state.labels += read.labels
        return rate

    def training_figures(self, rate: float) -> MetricsLine:
        """Loss since the last line, learning rate, gradient norm, steps left out."""
        loss = self.state.loss / self.state.labels if self.state.labels else float("nan")
        self.state.loss, self.state.labels = 0.0, 0
        self.state.figures["train_loss"] = loss
        return {
            "loss": loss,
            "lr": rate,
            "grad_norm": self.state.guard.norm,
            "skipped_steps": self.state.guard.skipped,
            "workers": self._world,
        }
