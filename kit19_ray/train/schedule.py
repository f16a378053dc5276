"""The learning rate as a pure function of the step, so that a resumed run needs no scheduler's state."""

from __future__ import annotations

import math

from kit19_ray.config.schema import TrainConfig
from kit19_ray.train.spec import TrainPlan


def learning_rate(step: int, plan: TrainPlan, train: TrainConfig) -> float:
    """The rate of update `step` (from 0): linear warm-up to the peak, then what `train.schedule` says.

    The warm-up's last step has the peak; of a schedule that falls, the last step of all has
    `min_learning_rate_ratio` of it.
    """
    peak, end = train.learning_rate, train.min_learning_rate_ratio
    if step < plan.warmup_steps:
        return peak * (step + 1) / plan.warmup_steps
    if train.schedule == "constant":
        return peak
    begun = plan.warmup_steps
    if train.schedule == "wsd":
        # The decay begins one step before its first lower rate; a long warm-up leaves less to decay in.
        begun = max(begun, plan.steps - plan.decay_steps - 1)
    span = max(1, plan.steps - 1 - begun)
    done = min(1.0, max(0.0, (step - begun) / span))
    fall = 0.5 * (1 + math.cos(math.pi * done)) if train.schedule == "cosine" else 1 - done
    return peak * (end + (1 - end) * fall)
