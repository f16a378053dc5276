"""metrics.jsonl: one line per logged step, written by rank 0, read by the driver's bar and by whoever draws charts.

step, steps, epoch, progress   where the run is; step counts finished optimizer steps
loss                           mean over the labels since the line before; not in step 0's line
validation_loss                mean over the labels of the whole validation split; only where it was computed
validation_loss_by_task        the same of each task's rows, where the data prefix says whose they are
lr, grad_norm                  of the last step
skipped_steps                  since the run's beginning, left out because their gradient was not finite
tokens_per_second              over all workers, padding included, without validation and checkpoints
learned_tokens_per_second      the same of tokens with a label
tokens_per_second_per_worker   of one worker, padding included
mfu                            share of the GPUs' peak, see train.flops; only where the peak is known
memory_bytes                   most that rank 0's GPU had allocated; only on GPUs
data_wait_seconds              rank 0 waited for batches since the line before
step_seconds, validate_seconds, save_seconds   rank 0 spent since the line before
eta_seconds                    left at this pace; not in step 0's line
score, score_step              of a checkpoint, and its step; a line of its own, when the score came in
workers                        how many train
checkpoint_step                optimizer steps that the newest whole checkpoint holds; -1 before the first
checkpoint_failing_seconds     since how long the store has taken no checkpoint; 0 while it does
time                           Unix time

A figure that is not finite is null. events.jsonl beside it has `step`, `time` and a `text`: what was skipped, taken up
or went wrong, over all starts of the run. status.json says what rank 0 is doing, `phase`, `step`, `time`; it is written
every few seconds, also while a step takes minutes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any, TypedDict

from kit19_ray.io import storage

NAME, EVENTS, STATUS = "metrics.jsonl", "events.jsonl", "status.json"
_REWRITE_SECONDS = 10.0  # an S3 object has no append, so it is written anew, at most this often
_TAIL_BYTES = 4096


class MetricsLine(TypedDict, total=False):
    """A line of metrics.jsonl; see above for what each figure is. One that was not finite is None when it is read."""

    step: int
    steps: int
    epoch: float
    progress: float
    loss: float | None
    validation_loss: float | None
    validation_loss_by_task: dict[str, float]
    lr: float
    grad_norm: float | None
    skipped_steps: int
    tokens_per_second: float
    learned_tokens_per_second: float
    tokens_per_second_per_worker: float
    mfu: float
    memory_bytes: int
    data_wait_seconds: float
    step_seconds: float
    validate_seconds: float
    save_seconds: float
    eta_seconds: float
    score: float
    score_step: int
    workers: int
    checkpoint_step: int
    checkpoint_failing_seconds: float
    time: float
    text: str  # of EVENTS only


class RunStatus(TypedDict):
    """status.json."""

    phase: str
    step: int
    time: float


class MetricsLog:
    """The file of one run.

    Args:
        out: the run's prefix.
        step: lines of later steps are dropped: a resumed run makes those steps again. None keeps all.
        name: NAME or EVENTS.
    """

    def __init__(self, out: str, step: int | None, name: str = NAME) -> None:
        self._uri = storage.join(out, name)
        self._local = self._uri.startswith("file://")
        self._lines = [to_json(line) for line in read(out, name) if step is None or line["step"] <= step]
        self._written = 0.0
        self._write_all()

    def append(self, line: Mapping[str, object]) -> None:
        """Adds a line; on S3 it may be seen a little later."""
        text = to_json(line)
        self._lines.append(text)
        if self._local:
            with open(storage.filesystem(self._uri)[1], "a") as file:
                file.write(text + "\n")
        elif time.monotonic() - self._written > _REWRITE_SECONDS:
            self._write_all()

    def flush(self) -> None:
        """Makes every line seen."""
        if not self._local:
            self._write_all()

    def _write_all(self) -> None:
        storage.write_text(self._uri, "".join(line + "\n" for line in self._lines))
        self._written = time.monotonic()


def to_json(line: Mapping[str, object]) -> str:
    """The line as JSON, which has no word for infinity: a figure that is not finite is null."""
    return json.dumps(
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}, ensure_ascii=False
    )


def write_status(out: str, status: RunStatus) -> None:
    """Says what rank 0 is doing."""
    storage.write_text(storage.join(out, STATUS), json.dumps(status))


def read_status(out: str) -> RunStatus | None:
    """What rank 0 was last heard to do."""
    uri = storage.join(out, STATUS)
    if not storage.exists(uri):
        return None
    try:
        found: RunStatus = json.loads(storage.read_text(uri))
    except ValueError:
        return None
    return found


def read(out: str, name: str = NAME) -> list[MetricsLine]:
    """All whole lines of the run's metrics, or of EVENTS; a line torn by a kill is left out."""
    uri = storage.join(out, name)
    if not storage.exists(uri):
        return []
    return _parse(storage.read_text(uri))


def last(out: str) -> MetricsLine | None:
    """The newest whole line, read from the end of the file."""
    lines = tail(out)
    return lines[-1] if lines else None


def newest(out: str) -> MetricsLine:
    """Each figure as the newest line that has it says, of the file's end; {} before the first line."""
    found: Any = {}
    for line in tail(out):
        found |= {name: value for name, value in line.items() if value is not None}
    newest_of_each: MetricsLine = found
    return newest_of_each


def tail(out: str, name: str = NAME) -> list[MetricsLine]:
    """The whole lines at the file's end."""
    uri = storage.join(out, name)
    if not storage.exists(uri):
        return []
    with storage.open_input(uri) as file:
        file.seek(max(0, file.size() - _TAIL_BYTES))
        return _parse(file.readall().decode(errors="replace"))


def _parse(text: str) -> list[MetricsLine]:
    found: list[MetricsLine] = []
    for line in text.splitlines():
        try:
            value: Any = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut at the start of the tail, or by a kill
        if isinstance(value, dict) and "step" in value:
            made: Any = value
            found.append(made)
    return found
