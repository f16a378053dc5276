from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data import rendering


@given(st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=5))
def test_ranks_of_runs_are_those_of_the_whole(runs: list[list[int]]) -> None:
    """A record with n templates that fit it is used in turns 0 .. n - 1; ranks go by turn, then by record."""
    fitting = [n for run in runs for n in run]
    whole = [(turn, i) for turn in range(max(fitting, default=0)) for i, n in enumerate(fitting) if n > turn]
    counts = [[sum(n > turn for n in run) for turn in range(max(run, default=0))] for run in runs]
    total, starts = rendering.turns(counts)
    assert total == len(whole)
    apart, first = {}, 0
    for run, begins in zip(runs, starts, strict=True):
        for turn, start in enumerate(begins):
            using = [first + i for i, n in enumerate(run) if n > turn]
            apart |= {start + place: (turn, i) for place, i in enumerate(using)}
        first += len(run)
    assert [apart[rank] for rank in range(total)] == whole


def test_a_split_without_examples_has_one_empty_part() -> None:
    assert rendering.num_parts(0) == 1
    assert rendering.num_parts(rendering.PART) == 1 and rendering.num_parts(rendering.PART + 1) == 2
