"""The learning rate: up to the peak, down to the end, never above."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.train.schedule import learning_rate


def test_the_corners() -> None:
    rates = [learning_rate(t, 100, 10, 1e-3, 0.1) for t in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(1e-3)
    assert rates[99] == pytest.approx(1e-4)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@given(st.integers(1, 300), st.floats(0, 0.99), st.floats(0, 1))
def test_it_stays_between_zero_and_the_peak(steps: int, warmup: float, end: float) -> None:
    rates = [learning_rate(t, steps, int(warmup * steps), 1.0, end) for t in range(steps)]
    assert all(0 <= rate <= 1 + 1e-12 for rate in rates)
    assert max(rates) == pytest.approx(1.0)
