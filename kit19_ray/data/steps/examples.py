"""Records -> examples, of the tasks that have none yet.

count      how often each of a run's records is used                           a Ray task a run of records
render     a run's records under their templates, into ranges of `order`       a Ray task a run of records
gather     a range of `order` over all runs                                    a Ray task a range
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.data_manifests import ClassCounts, ExamplesManifest, ExamplesSplit
from kit19_ray.data import balance, ray_tasks, rendering
from kit19_ray.data.filters.near_duplicates import RecordFile
from kit19_ray.data.ray_tasks import MIB
from kit19_ray.data.record_pool import SPLITS
from kit19_ray.data.rendering import Rendering, RunCount, RunShare
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
    runs = [file for name in making for file in files[name]]
    items = [(f"{file.task} {file.split}", (file.task, file.split, file.uri)) for file in runs]
    counted = list(zip(runs, ray_tasks.run("count", _count, items, making, _MEMORY), strict=True))
    shares: list[tuple[str, RunShare]] = []
    built: dict[str, dict[str, ExamplesSplit]] = {name: {} for name in making}
    for name, how in making.items():
        for split in SPLITS:
            mine = [(file, count) for file, count in counted if (file.task, file.split) == (name, split)]
            made, entry = _split(how, split, mine, wanted[name][split])
            shares += [(name, share) for share in made]
            built[name][split] = entry
    return shares, built


def _split(
    how: Rendering, split: str, runs: Sequence[tuple[RecordFile, RunCount]], quota: int
) -> tuple[list[RunShare], ExamplesSplit]:
    """What each of a split's runs has to give, in its class, and the split's counts."""
    drawn = how.balance if split == "train" else balance.SOURCE
    labels = drawn.classes or ("",)
    weights = drawn.weights(how.records) if drawn.classes else (1,)
    classes: list[ClassCounts] = []
    starts: dict[str, tuple[int, ...]] = {}
    for cls, (label, weight) in enumerate(zip(labels, weights, strict=True)):
        mine = [(file, count) for file, count in runs if file.cls == cls]
        total, first = rendering.turns([count.turns for _, count in mine])
        starts |= {file.uri: start for (file, _), start in zip(mine, first, strict=True)}
        records = sum(count.records for _, count in mine)
        classes.append({"label": label, "records": records, "examples": total, "weight": weight})
    shares = balance.shares(drawn, classes, quota)
    total = sum(shares.sizes)
    parts = rendering.num_parts(min(total, quota))
    alone = len(runs) == 1 and parts == 1  # nothing to gather
    made = [
        RunShare(split, -1 if alone else run, file.uri, starts[file.uri], shares, file.cls, quota, parts)
        for run, (file, _) in enumerate(runs)
    ]
    return made, {
        "records": sum(count.records for _, count in runs),
        "examples": min(total, quota),
        "parts": parts,
        "available": total,
        "withheld": sum(count.withheld for _, count in runs),
        "classes": classes,
    }


def _count(making: Mapping[str, Rendering], item: tuple[str, str, str]) -> RunCount:
    return rendering.count(making[item[0]], item[1], item[2])


def _render(making: Mapping[str, Rendering], item: tuple[str, RunShare]) -> tuple[str, str | None]:
    return rendering.render(making[item[0]], item[1])


def _gather(making: Mapping[str, Rendering], item: tuple[str, str, int, list[str]]) -> tuple[str, str]:
    return rendering.gather(making[item[0]], *item[1:])
