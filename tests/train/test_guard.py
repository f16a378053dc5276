"""Steps that are left out are counted and named, spikes said, a run that leads nowhere ended."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from kit19_ray.config.schema import TrainConfig
from kit19_ray.train.guard import Guard

ROWS = np.arange(5)


def guard(**train: Any) -> Guard:
    return Guard(TrainConfig.model_validate(train))


def test_a_step_without_a_finite_gradient_is_counted_and_its_rows_named() -> None:
    found = guard()
    assert found.look(1, True, 3.0, 1.0, ROWS) == []
    said = found.look(2, False, float("nan"), float("inf"), np.arange(10, 30))
    assert said == [
        "step 2 is left out: its gradient is not finite (summed loss nan); packed rows 10, 11, 12, 13, 14, 15, 16, 17 "
        "and 12 more"
    ]
    assert (found.skipped, found.counted, found.error) == (1, False, None)


def test_too_many_in_a_row_end_the_run() -> None:
    found = guard(max_skipped_steps=2)
    for step in range(1, 3):
        found.look(step, False, 1.0, float("inf"), ROWS)
    found.look(3, True, 1.0, 1.0, ROWS)  # in between one is fine
    for step in range(4, 6):
        found.look(step, False, 1.0, float("inf"), ROWS)
        assert found.error is None
    found.look(6, False, 1.0, float("inf"), ROWS)
    assert "gradients of 3 steps in a row are not finite, at step 6" in str(found.error)
    assert found.skipped == 5


def test_a_loss_that_is_no_number_in_a_step_that_counted_ends_the_run_at_once() -> None:
    found = guard()
    found.look(1, True, float("nan"), 1.0, ROWS)
    assert "loss is nan at step 1" in str(found.error)
    assert "train.learning_rate" in found.error.hint if found.error else False


def test_a_spike_is_measured_by_the_median() -> None:
    found = guard(spike_factor=10)
    assert not [said for step in range(10) for said in found.look(step, True, 1.0, 1.0 + step % 3, ROWS)]
    assert found.look(10, True, 1.0, 19.0, ROWS) == []
    said = found.look(11, True, 1.0, 40.0, ROWS)
    assert said == ["step 11: gradient norm 40, 20 times the median; packed rows 0, 1, 2, 3, 4"]
    quiet = guard(spike_factor=None)
    assert not [said for step in range(60) for said in quiet.look(step, True, 1.0, 10.0**step, ROWS)]


def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_stopped() -> None:
    one, two = guard(max_skipped_steps=3), guard(max_skipped_steps=3)
    for step in range(30):
        one.look(step, step != 29, 1.0, 1.0 + step, ROWS)
    two.restore(json.loads(json.dumps(one.state())))
    for step in range(30, 34):
        assert one.look(step, False, 1.0, float("inf"), ROWS) == two.look(step, False, 1.0, float("inf"), ROWS)
        assert str(one.error) == str(two.error)
    assert one.state() == two.state()
