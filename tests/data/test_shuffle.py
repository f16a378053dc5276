from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data import rendering, shuffle
from kit19_ray.errors import StorageError

SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.string())])


@given(st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=4))
def test_every_row_is_in_its_bucket_once(tmp_path_factory: pytest.TempPathFactory, files: list[list[int]]) -> None:
    folder = tmp_path_factory.mktemp("s", numbered=True)
    uris, expected, row = [], {b: [] for b in range(4)}, 0
    for number, buckets in enumerate(files):
        rows = list(range(row, row + len(buckets)))
        row += len(buckets)
        table = pa.table({"row": rows, "text": [f"글{r}" for r in rows]}, SCHEMA)
        uris.append(f"file://{folder}/{number}.arrow")
        shuffle.write(uris[-1], table, np.array(buckets, np.int64), 4)
        for r, b in zip(rows, buckets, strict=True):
            expected[b].append(r)
    for bucket, rows in expected.items():
        assert shuffle.read(uris, bucket, SCHEMA)["row"].to_pylist() == rows


def test_a_file_that_is_gone_is_an_error_and_not_fewer_rows(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        shuffle.read([f"file://{tmp_path}/0.arrow"], 0, SCHEMA)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1), st.integers(1, 300))
def test_buckets_are_ranges_of_the_hash(orders: list[int], num: int) -> None:
    buckets = shuffle.bucket_of(np.array(orders, np.uint64) << np.uint64(1), num).tolist()
    assert all(0 <= b < num for b in buckets)
    for order, bucket in zip(orders, buckets, strict=True):
        low, high = rendering.order_range(bucket, num)
        assert low <= order < high
    assert rendering.order_range(num - 1, num)[1] == 2**63
