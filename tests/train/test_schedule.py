"""The learning rate: up to the peak, down to the end, never above; the same as transformers' schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.config.schema import TrainConfig
from kit19_ray.train import spec
from kit19_ray.train.schedule import learning_rate


def rates(steps: int, **train: Any) -> list[float]:
    config = TrainConfig.model_validate({"batch_size": 1, "learning_rate": 1.0, "epochs": steps} | train)
    plan = spec.make(config, 1, 64)
    assert plan.steps == steps
    return [learning_rate(t, plan, config) for t in range(steps)]


def test_the_corners() -> None:
    found = rates(100, learning_rate=1e-3, warmup_ratio=0.1)
    assert found[0] == pytest.approx(1e-4)
    assert found[9] == pytest.approx(1e-3)
    assert found[10] == pytest.approx(1e-3)
    assert found[99] == pytest.approx(1e-4)
    assert found[:10] == sorted(found[:10])
    assert found[10:] == sorted(found[10:], reverse=True)


@given(
    st.integers(1, 300),
    st.floats(0, 0.99),
    st.floats(0, 1),
    st.sampled_from(["cosine", "linear", "constant", "wsd"]),
    st.floats(0.01, 1),
)
def test_it_stays_between_zero_and_the_peak(steps: int, warmup: float, end: float, kind: str, decay: float) -> None:
    found = rates(steps, warmup_ratio=warmup, min_learning_rate_ratio=end, schedule=kind, decay_ratio=decay)
    assert all(0 <= rate <= 1 + 1e-12 for rate in found)
    assert max(found) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "theirs", "more"),
    [
        ("cosine", "cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("linear", "linear", {}),
        ("constant", "constant_with_warmup", {}),
        ("wsd", "warmup_stable_decay", {"num_decay_steps": 20, "decay_type": "linear", "min_lr_ratio": 0.1}),
    ],
)
def test_it_is_transformers_own_but_for_where_it_begins_and_ends(kind: str, theirs: str, more: dict[str, Any]) -> None:
    """Theirs begins at 0 and reaches its end one step after the last; ours leaves out these two steps."""
    from transformers import get_scheduler

    steps, warmup = 100, 10
    ours = rates(steps, schedule=kind, warmup_ratio=0.1, min_learning_rate_ratio=0.0 if kind == "linear" else 0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    made = get_scheduler(theirs, optimizer, warmup, steps - 1, scheduler_specific_kwargs=more)
    for step in range(1 if kind != "wsd" else warmup, steps):  # their wsd warms up from its end, ours from 0
        found = ours[step - 1] if step < warmup else ours[step]  # the warm-up's step 1 is our step 0
        assert found == pytest.approx(made.lr_lambdas[0](step), abs=1e-6), step
