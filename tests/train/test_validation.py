"""The validation loss is a mean over labels, of the whole split and of each task, for any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit19_ray.artifacts import metrics_log, packed_shards
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.train.validation import examples_of
from tests.train.ranks import run_ranks, spec_of, train
from tests.train.test_elastic import SETTINGS

pytestmark = pytest.mark.ranks


def test_whose_each_place_of_a_row_is() -> None:
    places = np.array([[0, 1, 2, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6]], np.int32)
    # Two examples and padding, which restarts as an example does; one example that fills its row.
    assert examples_of(places, [[4, 2], [1]]).tolist() == [4, 4, 4, 2, 2, -1, -1, 1, 1, 1, 1, 1, 1, 1]


def test_the_tasks_of_a_shard_come_back(data_prefix: str) -> None:
    found = packed_shards.read_tasks(data_prefix, "validation")
    split = PackedSplit.open(data_prefix, "validation")
    assert found is not None and len(found) == len(split)
    assert {task for row in found for task in row} == {"even", "odd"}
    assert packed_shards.read_tasks(data_prefix, "train") is None


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_the_tasks_losses_add_up_to_the_whole(
    zero_stage: int, make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    keys = SETTINGS | {"max_steps": 1, "zero_stage": zero_stage}
    lines = []
    for workers in (1, 2):
        spec = spec_of(make_config(f"file://{tmp_path}/{workers}", **keys, workers=workers), data_prefix)
        run_ranks(workers, train, spec)
        lines.append(metrics_log.read(spec.out)[0])
    one, two = lines
    assert one["validation_loss_by_task"] == pytest.approx(two["validation_loss_by_task"], rel=1e-6)
    split = PackedSplit.open(data_prefix, "validation")
    rows = split.rows(range(len(split)))
    owners = examples_of(
        rows["position_ids"],
        [
            [0 if task == "even" else 1 for task in row]
            for row in packed_shards.read_tasks(data_prefix, "validation") or ()
        ],
    )
    learned = np.bincount(owners[rows["labels"].reshape(-1) != -100], minlength=2)
    by_task = one["validation_loss_by_task"]
    whole = (by_task["even"] * learned[0] + by_task["odd"] * learned[1]) / learned.sum()
    assert one["validation_loss"] == pytest.approx(whole, rel=1e-9)
