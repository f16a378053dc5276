"""Sources -> records, of the tasks that have none yet.

stream     file parts -> rows -> checked rows -> buckets of what they ask      Ray Data (`read_sources`)
copies     a bucket holds all copies of a text: the first stays                a Ray task a bucket
ranks      where a large sample is cut into runs                               a Ray task a task and split
sample     the bottom k of a hash, over all buckets                            a Ray task a run
finish     rejects, and the commit marker                                      a Ray task a task
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kit19_ray.artifacts.data_manifests import PoolCounts
from kit19_ray.config.schema import Config
from kit19_ray.data import ray_tasks, record_pool, sampling
from kit19_ray.data.checked_rows import Reading, Receipt
from kit19_ray.data.checks import Checker
from kit19_ray.data.filters.near_duplicates import RecordFile
from kit19_ray.data.inputs import Inputs
from kit19_ray.data.progress import StreamProgress
from kit19_ray.data.ray_tasks import MIB
from kit19_ray.data.record_pool import Bucket, Drawn, RecordPool
from kit19_ray.data.sampling import RankRange
from kit19_ray.data.source_parts import FilePart
from kit19_ray.io import storage
from kit19_ray.tasks.task import Task

_BUCKET = 32 << 20  # bytes of a task's files to a bucket
_ALL = RankRange(0, 2**64 - 1, record_pool.RUN)


def make(
    config: Config,
    inputs: Inputs,
    prefixes: Mapping[str, str],
    sizes: Mapping[str, int],
    classes: Mapping[str, tuple[str, ...]],
    index: str | None,
) -> None:
    """Makes the records of the tasks in `prefixes`.

    Args:
        prefixes: where each task's records go.
        sizes: training examples the records have to be enough for, by task.
        classes: the labels of which training records are drawn apart, by task.
        index: prefix of the index of evaluation items.
    """
    # Imported here: it is the one module that needs Ray Data when it is loaded.
    from kit19_ray.data import read_sources

    every = [reading(config, inputs.tasks[name], inputs.parts[name], prefix) for name, prefix in prefixes.items()]
    progress = StreamProgress(sum(part.end - part.start for r in every for part in r.parts))
    receipts = read_sources.read_and_check(every, index, progress)
    progress.end()
    sample(config, every, receipts, prefixes, sizes, classes)


def reading(config: Config, task: Task, parts: Sequence[FilePart], prefix: str) -> Reading:
    """What the stream is told of one task."""
    return Reading(
        checker=Checker(task, config.seed, config.data.validation_fraction, config.data.gates),
        parts=parts,
        uri=storage.join(prefix, "rows"),
        num_buckets=max(1, sum(part.end - part.start for part in parts) // _BUCKET),
    )


def sample(
    config: Config,
    readings: Sequence[Reading],
    receipts: Mapping[str, Receipt],
    prefixes: Mapping[str, str],
    sizes: Mapping[str, int],
    classes: Mapping[str, tuple[str, ...]],
) -> None:
    """Makes the records of checked rows: copies leave, a sample is drawn, what left is written down.

    Args:
        receipts: what the stream wrote, by task.
        prefixes, sizes, classes: as `make`.
    """
    pools = {
        r.task.name: RecordPool(
            task=r.task,
            rows=r.uri,
            files=receipts[r.task.name].files,
            num_buckets=r.num_buckets,
            num_parts=len(r.parts),
            out=prefixes[r.task.name],
            wanted={
                "train": sampling.wanted("train", sizes[r.task.name]),
                "validation": sampling.wanted("validation", config.data.validation),
            },
            gates=config.data.gates,
            classes=classes[r.task.name],
        )
        for r in readings
    }
    buckets = _drop_copies(pools)
    sampled = _draw(pools, buckets)
    done = []
    for name, pool in pools.items():
        dropped = receipts[name].dropped + sum((b.dropped for b in buckets[name]), Counter[str]())
        counts: PoolCounts = {
            "raw": receipts[name].rows,
            "records": receipts[name].records,
            "unique": sum(b.unique.total() for b in buckets[name]),
            "classes": {label: sum(b.unique[label] for b in buckets[name]) for label in pool.task.labels},
            "dropped": dict(sorted(dropped.items())),
        }
        done.append((name, (pool.task.name, counts, [file for file in sampled if file.task == name])))
    ray_tasks.run("rejects", _finish, done, pools, 512 * MIB)
    for pool in pools.values():
        storage.delete(pool.rows)


def _drop_copies(pools: Mapping[str, RecordPool]) -> dict[str, list[Bucket]]:
    """What became of each task's buckets."""
    items = [(name, bucket) for name, pool in pools.items() for bucket in range(pool.num_buckets)]
    made = ray_tasks.run("copies", _copies, [(name, (name, bucket)) for name, bucket in items], pools, 512 * MIB)
    found: dict[str, list[Bucket]] = {name: [] for name in pools}
    for (name, _), bucket in zip(items, made, strict=True):
        found[name].append(bucket)
    return found


def _draw(pools: Mapping[str, RecordPool], buckets: Mapping[str, list[Bucket]]) -> list[RecordFile]:
    """The files of every task's sample, one a run; only a sample of more than one run is looked through for ranks."""
    kept = {(n, drawn): sum(b.kept[drawn] for b in buckets[n]) for n in pools for drawn in pools[n].drawn()}
    many = [key for key in kept if kept[key] > record_pool.RUN]
    ranged = ray_tasks.run("ranks", _ranges, [(f"{n} {s} {c}", (n, (s, c))) for n, (s, c) in many], pools, 512 * MIB)
    runs = {(n, drawn): [replace(_ALL, take=min(_ALL.take, pools[n].wanted[drawn[0]]))] for n, drawn in kept}
    runs |= dict(zip(many, ranged, strict=True))
    items: list[tuple[str, tuple[str, Drawn, int, RankRange]]] = []
    numbers: Counter[tuple[str, str]] = Counter()  # runs of a split so far, over its classes
    for (name, drawn), every in runs.items():
        for run in every:
            number = numbers[name, drawn[0]]
            numbers[name, drawn[0]] += 1
            items.append((f"{name} {drawn[0]} {number}", (name, drawn, number, run)))
    return ray_tasks.run("sample", _sample, items, pools, 320 * MIB)


def _copies(pools: Mapping[str, RecordPool], item: tuple[str, int]) -> Bucket:
    return record_pool.copies(pools[item[0]], item[1])


def _ranges(pools: Mapping[str, RecordPool], item: tuple[str, Drawn]) -> list[RankRange]:
    return record_pool.ranges(pools[item[0]], item[1])


def _sample(pools: Mapping[str, RecordPool], item: tuple[str, Drawn, int, RankRange]) -> RecordFile:
    return record_pool.sample(pools[item[0]], *item[1:])


def _finish(pools: Mapping[str, RecordPool], item: tuple[str, PoolCounts, Sequence[RecordFile]]) -> None:
    record_pool.finish(pools[item[0]], *item[1:])
