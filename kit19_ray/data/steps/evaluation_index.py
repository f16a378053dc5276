"""The index that rows are held against, made by a Ray task when it is not on storage yet."""

from __future__ import annotations

from collections.abc import Sequence

from kit19_ray.artifacts import manifest
from kit19_ray.data import ray_tasks
from kit19_ray.data.filters import index_store
from kit19_ray.data.ray_tasks import MIB
from kit19_ray.sources.evaluation_sets import Located


def make(root: str, version: int, sets: Sequence[Located], contained: float) -> str | None:
    """Prefix of the index of evaluation items; None when there is nothing to hold rows against."""
    if not sets:
        return None
    uri = index_store.prefix(root, version, sets, contained)
    if manifest.finished(uri, "index") is None:
        ray_tasks.run("index", _build, [("of evaluation items", (uri, contained))], sets, 1024 * MIB)
    return uri


def _build(sets: Sequence[Located], item: tuple[str, float]) -> None:
    index_store.build(item[0], sets, item[1])
