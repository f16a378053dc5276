"""Records of the embedded samples, as the data stage reads them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from kit19_ray.io import storage
from kit19_ray.sources.files import locate
from kit19_ray.sources.readers.base import SourceRow
from kit19_ray.tasks.task import Task

_MOST = 40


def records(task: Task, samples: Path) -> list[dict[str, str]]:
    """Up to 40 records' fields of a task, of all its splits."""
    return _records(task.name, task.source_id, str(samples))


@lru_cache(maxsize=64)
def _records(name: str, source_id: str, samples: str) -> list[dict[str, str]]:
    from kit19_ray.data.records import Record, to_record
    from kit19_ray.tasks.task import load_tasks

    task = load_tasks([name])[name]
    found: list[dict[str, str]] = []
    for file in locate(source_id, task.source, storage.normalise(samples), task.spec.splits):
        for raw in task.source.read(file):
            made = to_record(task, file.path, raw) if isinstance(raw, SourceRow) else None
            if isinstance(made, Record):
                found.append(dict(made.fields))
    return found[:_MOST]
