"""metrics.jsonl: one line per logged step, written by rank 0, read by the driver's bar and by whoever draws charts.

step, steps, epoch, progress   where the run is; step counts finished optimizer steps
loss                           mean over the labels since the line before; not in step 0's line
validation_loss                mean over the labels of the whole validation split; only where it was computed
lr, grad_norm                  of the last step
tokens_per_second              over all workers, padding included, without validation and checkpoints
data_wait_seconds              rank 0 waited for batches since the line before
eta_seconds                    left at this pace; not in step 0's line
time                           Unix time
"""

from __future__ import annotations

import json
import time
from typing import Any

from kit19_ray.io import storage

NAME = "metrics.jsonl"
_REWRITE_SECONDS = 10.0  # an S3 object has no append, so it is written anew, at most this often
_TAIL_BYTES = 4096


class MetricsLog:
    """The file of one run.

    Args:
        out: the run's prefix.
        step: lines of later steps are dropped: a resumed run makes those steps again.
    """

    def __init__(self, out: str, step: int) -> None:
        self._uri = storage.join(out, NAME)
        self._local = self._uri.startswith("file://")
        self._lines = [json.dumps(line) for line in read(out) if line["step"] <= step]
        self._written = 0.0
        self._write_all()

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line; on S3 it may be seen a little later."""
        text = json.dumps(line)
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


def read(out: str) -> list[dict[str, Any]]:
    """All whole lines of the run's metrics; a line torn by a kill is left out."""
    uri = storage.join(out, NAME)
    if not storage.exists(uri):
        return []
    return _parse(storage.read_text(uri))


def last(out: str) -> dict[str, Any] | None:
    """The newest whole line, read from the end of the file."""
    lines = _tail(out)
    return lines[-1] if lines else None


def newest(out: str) -> dict[str, Any]:
    """Each figure as the newest line that has it says, of the file's end; {} before the first line."""
    found: dict[str, Any] = {}
    for line in _tail(out):
        found |= {name: value for name, value in line.items() if value is not None}
    return found


def _tail(out: str) -> list[dict[str, Any]]:
    uri = storage.join(out, NAME)
    if not storage.exists(uri):
        return []
    with storage.open_input(uri) as file:
        file.seek(max(0, file.size() - _TAIL_BYTES))
        return _parse(file.readall().decode(errors="replace"))


def _parse(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut at the start of the tail, or by a kill
        if isinstance(value, dict) and "step" in value:
            found.append(value)
    return found
