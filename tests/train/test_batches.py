"""The batches: every row once per epoch, the same batch for any number of workers, nothing dropped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.train import batches
from kit19_ray.train.spec import accumulation

sizes = st.integers(1, 200)
seeds = st.integers(0, 2**63)


@given(seeds, st.integers(0, 1000), sizes)
def test_an_epoch_holds_every_row_once(seed: int, epoch: int, rows: int) -> None:
    assert sorted(batches.permutation(seed, epoch, rows)) == list(range(rows))


@given(seeds, sizes, st.integers(1, 64), st.integers(1, 8))
def test_steps_run_through_the_epochs_without_a_gap(seed: int, rows: int, batch: int, steps: int) -> None:
    seen = np.concatenate([batches.global_batch(seed, t, rows, batch) for t in range(steps)])
    epochs = [batches.permutation(seed, e, rows) for e in range(-(-len(seen) // rows))]
    assert seen.tolist() == np.concatenate(epochs)[: len(seen)].tolist()


@given(seeds, st.integers(0, 50), sizes, st.integers(1, 90), st.integers(1, 7), st.integers(1, 4))
def test_ranks_share_the_global_batch(seed: int, step: int, rows: int, batch: int, world: int, micro: int) -> None:
    world = min(world, batch)
    whole = batches.global_batch(seed, step, rows, batch)
    passes = accumulation(batch, micro, world)
    parts = [batches.micro_batches(batches.rank_rows(whole, rank, world), micro, passes) for rank in range(world)]
    assert all(len(part) == passes for part in parts)
    assert all(0 < len(piece) <= micro for part in parts for piece in part)
    read = np.concatenate([np.concatenate(part) for part in parts])
    assert read[read != batches.NO_ROW].tolist() == whole.tolist()
    if batch % (world * micro) == 0:
        assert batches.NO_ROW not in read


@given(st.integers(0, 100), st.integers(1, 5), st.integers(1, 7))
def test_validation_reads_every_row_once_in_equal_passes(rows: int, world: int, size: int) -> None:
    ranks = [batches.validation_passes(rows, rank, world, size) for rank in range(world)]
    assert len({len(passes) for passes in ranks}) == 1
    assert all(len(p) == size for passes in ranks for p in passes)
    read = [int(r) for passes in ranks for p in passes for r in p if r != batches.NO_ROW]
    assert sorted(read) == list(range(rows))


def test_epochs_and_seeds_differ() -> None:
    first = batches.permutation(19, 0, 1000)
    assert (first != batches.permutation(19, 1, 1000)).mean() > 0.9
    assert (first != batches.permutation(20, 0, 1000)).mean() > 0.9


def test_the_order_is_fixed_for_good() -> None:
    # A change here would make every interrupted run go on with other batches than it was begun with.
    assert batches.permutation(19, 0, 8).tolist() == [1, 5, 6, 3, 4, 2, 0, 7]


def test_a_shuffle_has_no_pull_to_the_front() -> None:
    places = np.stack([np.argsort(batches.permutation(seed, 0, 50)) for seed in range(400)])
    mean = places.mean(axis=0)  # each row's mean place; expected 24.5, standard error 14.4 / 20 = 0.72
    assert np.abs(mean - 24.5).max() < 4 * 0.72


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="7 rows do not go into 3 passes of 2"):
        batches.micro_batches(np.arange(7), 2, 3)
    with pytest.raises(ValueError, match="without rows"):
        batches.global_batch(0, 0, 0, 4)
