"""Records that nearly equal another, of any task: a Ray task a band."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from kit19_ray.data import ray_tasks
from kit19_ray.data.filters import minhash, near_duplicates
from kit19_ray.data.filters.near_duplicates import NearDuplicates, RecordFile
from kit19_ray.data.ray_tasks import MIB


def find(files: Sequence[RecordFile], threshold: float) -> dict[str, NearDuplicates]:
    """Per task what leaves because another record is near; a task that loses nothing is not in it."""
    bands = [(f"in band {band}", (band, threshold)) for band in range(minhash.BANDS)]
    memory = 64 * MIB + 64 * sum(file.rows for file in files)
    return near_duplicates.merge(ray_tasks.run("near duplicates", _pairs, bands, files, memory))


def _pairs(files: Sequence[RecordFile], item: tuple[int, float]) -> pa.Table:
    return near_duplicates.pairs(files, *item)
