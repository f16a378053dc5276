"""Says when Ray Train's controller hears of a failure: the time it takes is a column of the table."""

from __future__ import annotations

from typing import Any

from ray.train import UserCallback

from kit19_ray.drill import faults


class Detector(UserCallback):
    """Says when Ray Train's controller heard of a failure; it runs there."""

    def __init__(self, out: str) -> None:
        self._out = out

    def after_exception(self, run_context: Any, worker_exceptions: Any) -> None:
        """Leaves word of the first failure."""
        del run_context, worker_exceptions
        if faults.read(self._out, faults.DETECTED) is None:
            faults.leave(self._out, faults.DETECTED, 0)
