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
    assert made.eval_every == 10


@pytest.mark.parametrize(
    ("batch", "micro", "workers", "passes"), [(8, 2, 2, 2), (8, 2, 3, 2), (10, 2, 2, 3), (64, 4, 16, 1), (7, 8, 3, 1)]
)
def test_passes_of_the_worker_with_most_rows(batch: int, micro: int, workers: int, passes: int) -> None:
    assert spec.accumulation(batch, micro, workers) == passes


def test_more_workers_than_rows_are_refused() -> None:
    with pytest.raises(TrainError, match=r"train.workers=9 is more than train.batch_size=8") as caught:
        spec.make(config(workers=9), 64, 64)
    assert "lower train.workers to 8" in caught.value.hint


@pytest.mark.parametrize("every", [None, 8, 200])
def test_a_run_that_would_save_nothing_is_refused(every: int | None) -> None:
    never = config(epochs=1, save_minutes=None, save_every=every)
    with pytest.raises(TrainError, match="save nothing of 8 steps before the last") as caught:
        spec.make(never, 64, 64)
    assert "train.save_minutes=10" in caught.value.hint
    spec.make(config(epochs=1, save_minutes=None, save_every=7), 64, 64)
    spec.make(config(epochs=1, save_minutes=10, save_every=every), 64, 64)
    spec.make(never, 8, 64)  # one step: there is nothing before the last


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(TrainError, match="no rows"):
        spec.make(config(), 0, 64)
