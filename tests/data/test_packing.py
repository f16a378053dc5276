from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.data.packing import TokenRow, assign, pack

SEQ_LEN = 16
PAD = 1

lengths = st.lists(st.integers(1, SEQ_LEN), max_size=60)


def rows_of(sizes: list[int]) -> list[TokenRow]:
    """Rows whose tokens are all different, so that a token names its place."""
    starts = np.cumsum([100, *sizes[:-1]]) if sizes else []
    return [
        TokenRow(np.arange(start, start + size, dtype=np.int32), num_prompt=(size + 1) // 2)
        for start, size in zip(starts, sizes, strict=True)
    ]


@given(lengths)
def test_every_item_is_in_one_bin_and_no_bin_overflows(sizes: list[int]) -> None:
    bins = assign(sizes, SEQ_LEN)
    assert sorted(i for b in bins for i in b) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in b) <= SEQ_LEN for b in bins)


@given(lengths)
def test_best_fit_leaves_no_two_bins_that_could_be_one(sizes: list[int]) -> None:
    used = sorted(sum(sizes[i] for i in b) for b in assign(sizes, SEQ_LEN))
    assert len(used) < 2 or used[0] + used[1] > SEQ_LEN


@given(lengths)
def test_labels_tokens_and_positions_of_a_packed_row_equal_the_unpacked_ones(sizes: list[int]) -> None:
    rows = rows_of(sizes)
    input_ids, labels, positions = pack(rows, SEQ_LEN, PAD)
    where = {int(token): (r, c) for (r, c), token in np.ndenumerate(input_ids) if token != PAD}
    for row in rows:
        r, start = where[int(row.input_ids[0])]
        span = slice(start, start + len(row.input_ids))
        assert input_ids[r, span].tolist() == row.input_ids.tolist()
        alone = np.where(np.arange(len(row.input_ids)) < row.num_prompt, IGNORE, row.input_ids)
        assert labels[r, span].tolist() == alone.tolist()
        assert positions[r, span].tolist() == list(range(len(row.input_ids)))
    padding = np.ones_like(input_ids, bool)
    for place in where.values():
        padding[place] = False
    assert (input_ids[padding] == PAD).all() and (labels[padding] == IGNORE).all()


@given(lengths)
def test_a_shift_never_crosses_examples(sizes: list[int]) -> None:
    _, labels, positions = pack(rows_of(sizes), SEQ_LEN, PAD)
    assert (labels[positions == 0] == IGNORE).all()


def test_the_docstrings_picture() -> None:
    sizes = [4, 3, 2]
    input_ids, _, positions = pack(rows_of(sizes), 8, PAD)
    assert positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0], [0, 1, 0, 1, 2, 3, 4, 5]]
    assert (input_ids == PAD).sum() == 7


@pytest.mark.parametrize("size", [0, SEQ_LEN + 1])
def test_what_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="does not fit a row of 16"):
        assign([size], SEQ_LEN)
