"""Records -> examples, of the tasks that have none yet.

count      how often each of a run's records is used                           a Ray task a run of records
render     a run's records under their templates, into ranges of `order`       a Ray task a run of records
gather     a range of `order` over all runs                                    a Ray task a range
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.stage_manifests import ExamplesManifest, ExamplesSplit
from kit19_ray.data import ray_tasks, rendering
from kit19_ray.data.filters.near_duplicates import RecordFile
from kit19_ray.data.ray_tasks import MIB
from kit19_ray.data.record_pool import SPLITS
from kit19_ray.data.rendering import Rendering, RunShare
from kit19_ray.io import storage

_MEMORY = 320 * MIB


def make(
    making: Mapping[str, Rendering], files: Mapping[str, Sequence[RecordFile]], wanted: Mapping[str, Mapping[str, int]]
) -> None:
    """Makes the examples of the tasks in `making`.

    Args:
        files: the record files of each task.
        wanted: examples of each task, by split.
    """
    shares, built = _plan(making, files, wanted)
    items = [(f"{name} {share.split}", (name, share)) for name, share in shares]
    rendered = ray_tasks.run("render", _render, items, making, _MEMORY)
    pieces: dict[tuple[str, str], list[str]] = {}  # (task, split) -> what its runs wrote, to be gathered
    hashes: dict[str, dict[str, str]] = {name: {} for name in making}
    for (name, share), (path, sha256) in zip(shares, rendered, strict=True):
        if sha256 is None:
            pieces.setdefault((name, share.split), []).append(path)
        else:
            hashes[name][path] = sha256
    gathered = [
        (f"{name} {split}", (name, split, number, found))
        for (name, split), found in pieces.items()
        for number in range(built[name][split]["parts"])
    ]
    written = ray_tasks.run("gather", _gather, gathered, making, _MEMORY)
    for (_, (name, *_)), (path, sha256) in zip(gathered, written, strict=True):
        hashes[name][path] = sha256
    for name, how in making.items():
        made: ExamplesManifest = {"stage": "examples", "task": name, "splits": built[name]}
        manifest.commit(how.out, made, known=hashes[name], without=["parts/"])
        storage.delete(storage.join(how.out, "parts"))


def _plan(
    making: Mapping[str, Rendering], files: Mapping[str, Sequence[RecordFile]], wanted: Mapping[str, Mapping[str, int]]
) -> tuple[list[tuple[str, RunShare]], dict[str, dict[str, ExamplesSplit]]]:
    """What each run of records has to give, by task; and the counts that come of it."""
    runs = [(file.task, file.split, file.uri) for name in making for file in files[name]]
    items = [(f"{task} {split}", (task, split, uri)) for task, split, uri in runs]
    counted = ray_tasks.run("count", _count, items, making, _MEMORY)
    shares: list[tuple[str, RunShare]] = []
    built: dict[str, dict[str, ExamplesSplit]] = {name: {} for name in making}
    for name in making:
        for split in SPLITS:
            quota = wanted[name][split]
            mine = [(uri, c) for (t, s, uri), c in zip(runs, counted, strict=True) if (t, s) == (name, split)]
            total, starts = rendering.turns([turns for _, (_, turns) in mine])
            parts = rendering.num_parts(min(total, quota))
            alone = len(mine) == 1 and parts == 1  # nothing to gather
            shares += [
                (name, RunShare(split, -1 if alone else run, uri, starts[run], quota, parts))
                for run, (uri, _) in enumerate(mine)
            ]
            records = sum(number for _, (number, _) in mine)
            built[name][split] = {"records": records, "examples": min(total, quota), "parts": parts}
    return shares, built


def _count(making: Mapping[str, Rendering], item: tuple[str, str, str]) -> tuple[int, list[int]]:
    return rendering.count(making[item[0]], item[1], item[2])


def _render(making: Mapping[str, Rendering], item: tuple[str, RunShare]) -> tuple[str, str | None]:
    return rendering.render(making[item[0]], item[1])


def _gather(making: Mapping[str, Rendering], item: tuple[str, str, int, list[str]]) -> tuple[str, str]:
    return rendering.gather(making[item[0]], *item[1:])
