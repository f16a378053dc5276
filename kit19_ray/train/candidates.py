"""The checkpoints of a run that are scored: which are due, handed to Ray Train, heard of, and which is the best.

Ray Train runs `CheckpointScorer` on each that is reported, one after the other, in a Ray task beside the training. Its
own record of a run dies with the driver; what counts is the scores in the run's prefix, which rank 0 looks for.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit19_ray.artifacts import checkpoint
from kit19_ray.artifacts.checkpoint import CheckpointIndex, CorruptCheckpoint, Folder
from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.artifacts.stage_manifests import BestEntry
from kit19_ray.errors import StorageError
from kit19_ray.train import best
from kit19_ray.train.best import Choice, Score
from kit19_ray.train.flags import ENOUGH, REPORT
from kit19_ray.train.spec import TrainSpec

_POLL_SECONDS = {"file": 0.5, "s3": 10.0}
_STATUS_SECONDS = 30.0  # between questions to Ray Train what became of its tasks


class CheckpointCandidates:
    """One rank's view; all but rank 0 know only which steps are due.

    Args:
        say: takes what the user should know.
        line: takes a line of metrics.
    """

    def __init__(
        self, spec: TrainSpec, rank: int, say: Callable[[str], None], line: Callable[[MetricsLine], None]
    ) -> None:
        self._spec, self._rank, self._say, self._line = spec, rank, say, line
        self._wanted = spec.config.best
        self._steps = spec.plan.scored_steps
        self._scores: dict[int, Score] = {}
        self._ready: list[Folder] = []
        self._reported: set[int] = set()
        self._saved = -1
        self._looked = self._asked = 0.0

    def due(self, step: int) -> bool:
        """Whether the state after `step` is to be saved and scored."""
        return step in self._steps

    def begin(self, step: int) -> None:
        """The run begins, or goes on, at `step`: takes up what an earlier start knew."""
        if self._rank or not self._steps:
            return
        for known in self._steps:
            if (score := best.read(self._spec.out, known)) is not None:
                self._scores[known] = score
        self._find()
        there = {at.step for at in self._ready}
        for lost in (s for s in self._steps if s <= step and s not in self._scores and s not in there):
            self._take(lost, Score(None, "its checkpoint is gone"))
            best.write(self._spec.out, lost, self._scores[lost])

    def validated(self, step: int, loss: float) -> None:
        """The validation loss after `step`, which may be the score."""
        if self._rank or self._wanted.task is not None or not self.due(step) or step in self._scores:
            return
        self._take(step, Score(loss))
        best.write(self._spec.out, step, self._scores[step])

    def flags(self, saved: int) -> int:
        """REPORT when a checkpoint waits to be scored, ENOUGH when the best is known.

        Args:
            saved: step of the last checkpoint that is whole.
        """
        if self._rank or not self._steps:
            return 0
        with contextlib.suppress(StorageError):  # the store is out: what is new is seen when it is back
            if saved != self._saved:
                self._find()
                self._saved = saved
            self._hear()
        return (REPORT if self._ready and self._wanted.task else 0) | (ENOUGH if self.choice().enough else 0)

    def report(self, dtype: str) -> None:
        """Hands the next one to Ray Train; a barrier, which all ranks must come to.

        Args:
            dtype: of the weights that the export would have.
        """
        import ray.train

        api: Any = ray.train
        if self._rank:
            api.report({})
            return
        at = self._ready.pop(0)
        self._reported.add(at.step)
        storage = api.get_context().get_storage()
        # Ray Train is given a name alone: the files are in the run's prefix, and Ray's storage is for its own records.
        named = api.Checkpoint(str(Path(storage.experiment_fs_path, at.name)), filesystem=storage.storage_filesystem)
        api.report(
            {},
            checkpoint=named,
            checkpoint_upload_mode=api.CheckpointUploadMode.NO_UPLOAD,
            validation=api.ValidationTaskConfig(
                fn_kwargs={"step": at.step, "folder": at.name, "dtype": dtype},
                timeout_s=60 * self._wanted.timeout_minutes,
            ),
        )

    def spared(self) -> set[int]:
        """Steps whose checkpoints must stay: the best one's, and those that wait for a score."""
        return {s for s in self._steps if s not in self._scores} | set(self.choice().ranked[:1])

    def choice(self) -> Choice:
        """What the scores so far come to."""
        wanted = self._wanted
        return best.choose(self._scores, self._steps, wanted.more_is_better, wanted.patience)

    def ranked(self) -> list[tuple[Folder, CheckpointIndex]]:
        """Checkpoints to export, the best first; only those that are whole."""
        whole: dict[int, tuple[Folder, CheckpointIndex]] = {}
        for at in checkpoint.folders(self._spec.out):
            with contextlib.suppress(CorruptCheckpoint):
                index = checkpoint.read_index(self._spec.out, at)
                if index is not None:
                    whole.setdefault(at.step, (at, index))
        return [whole[step] for step in self.choice().ranked if step in whole]

    def record(self, step: int, last: int) -> BestEntry:
        """What the manifest says of the choice of `step`, of a training that ended after `last`."""
        score = self._scores.get(step)
        return {
            "name": str(self._wanted.score),
            "step": step,
            "last": last,
            "score": score.value if score else None,
            "scores": {str(known): self._scores[known].value for known in sorted(self._scores)},
        }

    def _find(self) -> None:
        """Checkpoints that are whole, due and neither scored nor reported."""
        if self._wanted.task is None:
            return
        missing = [s for s in self._steps if s not in self._scores and s not in self._reported]
        found: dict[int, Folder] = {}
        for at in checkpoint.folders(self._spec.out):
            with contextlib.suppress(CorruptCheckpoint):
                if at.step in missing and checkpoint.read_index(self._spec.out, at) is not None:
                    found.setdefault(at.step, at)
        self._ready = [found[step] for step in sorted(found)]

    def _hear(self) -> None:
        """Takes the scores that have come in."""
        waiting = sorted(self._reported - self._scores.keys())
        if not waiting or time.monotonic() - self._looked < _POLL_SECONDS[self._spec.out.split("://")[0]]:
            return
        for step in waiting:
            if (score := best.read(self._spec.out, step)) is not None:
                self._take(step, score)
        self._looked = time.monotonic()
        if self._looked - self._asked >= _STATUS_SECONDS:
            self._asked = self._looked
            for step, what in self._given_up().items():
                if step not in self._scores:
                    self._take(step, best.read(self._spec.out, step) or Score(None, what))

    def _given_up(self) -> dict[int, str]:
        """Steps whose task ended without leaving a score, by Ray Train's own record."""
        import ray.train
        from ray.train.v2.api.reported_checkpoint import ReportedCheckpointStatus

        api: Any = ray.train
        said = {
            ReportedCheckpointStatus.VALIDATION_TIMEOUT: "it took longer than train.best.timeout_minutes",
            ReportedCheckpointStatus.VALIDATION_FAILED: "its task died",
        }
        reported = api.get_all_reported_checkpoints(consistency_mode=api.CheckpointConsistencyMode.COMMITTED)
        return {
            int(Path(known.checkpoint.path).name.partition("-")[0]): said[known.status]
            for known in reported
            if known.status in said
        }

    def _take(self, step: int, score: Score) -> None:
        if score.value is not None and not math.isfinite(score.value):
            score = Score(None, f"{self._wanted.score} is {score.value}")
        self._scores[step] = score
        if score.value is None:
            self._say(f"the checkpoint of step {step} has no {self._wanted.score}: {score.error}")
            return
        if self._wanted.task is not None:
            self._line({"score": score.value, "score_step": step})
        of_best = ", the best so far" if self.choice().ranked[:1] == [step] else ""
        self._say(f"the checkpoint of step {step} has {self._wanted.score} {score.value:.4f}{of_best}")
