"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler's state."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float, end_ratio: float) -> float:
    """The rate of update `step` (from 0): linear warm-up to `peak`, then a cosine down to `end_ratio * peak`.

    The warm-up's last step has the peak, the last step of all has the end.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    span = max(1, steps - 1 - warmup_steps)
    done = min(1.0, (step - warmup_steps) / span)
    return peak * (end_ratio + (1 - end_ratio) * 0.5 * (1 + math.cos(math.pi * done)))
