"""The plan: how many steps, and which sizes are refused."""

from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.config.schema import TrainConfig
from kit19_ray.errors import TrainError
from kit19_ray.train import spec


def config(**train: Any) -> TrainConfig:
    return TrainConfig.model_validate({"batch_size": 8, "micro_batch_size": 2, "workers": 2} | train)


@pytest.mark.parametrize(
    ("train", "rows", "steps"),
    [
        ({"epochs": 1}, 64, 8),
        ({"epochs": 1}, 65, 9),  # the tail of the last epoch is a whole step: it crosses into the next
        ({"epochs": 0.5}, 64, 4),
        ({"epochs": 2}, 3, 1),
        ({"epochs": 2, "max_steps": 5}, 64, 5),
    ],
)
def test_steps(train: dict[str, Any], rows: int, steps: int) -> None:
    assert spec.make(config(**train), rows, 64).steps == steps


def test_accumulation_and_warmup() -> None:
    made = spec.make(config(batch_size=16, epochs=10, warmup_ratio=0.03), 160, 64)
    assert (made.accumulation, made.steps, made.warmup_steps, made.batch_tokens) == (4, 100, 3, 1024)


def test_a_batch_that_does_not_divide_names_what_would() -> None:
    with pytest.raises(TrainError, match=r"train.batch_size=10 does not divide .* 2 x 2 = 4") as caught:
        spec.make(config(batch_size=10), 64, 64)
    assert "train.batch_size=8 or 12" in caught.value.hint


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(TrainError, match="no rows"):
        spec.make(config(), 0, 64)
