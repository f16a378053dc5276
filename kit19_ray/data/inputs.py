"""Which original files a build reads: found, hashed, checked against the hashes sources.yaml knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kit19_ray import storage
from kit19_ray.config import Config
from kit19_ray.errors import DataError, SourceError, nearest
from kit19_ray.sources.catalog import LocatedFile, locate
from kit19_ray.tasks import Task, load_tasks

SAMPLES = "samples"
_CHUNK = 4 << 20  # bytes


@dataclass(frozen=True)
class Inputs:
    """What one build reads.

    Attributes:
        tasks: those with files, by name.
        files: each task's files, in a fixed order.
        sha256: hash of each file, by URI.
        skipped: tasks left out, with the reason.
    """

    tasks: dict[str, Task]
    files: dict[str, list[LocatedFile]]
    sha256: dict[str, str]
    skipped: dict[str, str]


def sources_uri(config: Config) -> str:
    """Where the original files are."""
    named = config.data.sources
    if named == SAMPLES:
        return storage.normalise(Path(__file__).parent.parent / "samples")
    return storage.normalise(named) if named else storage.join(config.root, "sources")


def collect(config: Config) -> Inputs:
    """Finds and hashes every file the config's tasks are built from.

    Raises:
        TaskError: an unknown task.
        SourceError: a file is missing (unless `data.on_missing` is skip) or has another SHA-256 than is known.
        DataError: no task has files, or a per-task setting names no task of the build.
    """
    tasks = load_tasks(config.data.tasks, config.data.tasks_dir)
    for key, named in (("quotas", config.data.quotas), ("splits", config.data.splits)):
        for name in named:
            if name not in tasks:
                raise DataError(f"data.{key}: {name!r} is no task of this build{nearest(name, tasks)}")
    base = sources_uri(config)
    files: dict[str, list[LocatedFile]] = {}
    skipped: dict[str, str] = {}
    for name, task in tasks.items():
        splits = config.data.splits.get(name, list(task.spec.splits))
        try:
            files[name] = locate(task.source_id, task.source, base, splits)
        except SourceError as missing:
            if config.data.on_missing == "fail":
                raise
            skipped[name] = missing.message
    if not files:
        raise DataError(f"none of the {len(tasks)} tasks has its source files under {base}")
    hashes = _hash_all({f.uri for located in files.values() for f in located})
    if config.data.verify and config.data.sources != SAMPLES:
        _verify(files.values(), hashes)
    return Inputs({n: tasks[n] for n in files}, files, hashes, skipped)


def _hash_all(uris: Iterable[str]) -> dict[str, str]:
    ordered = sorted(uris)
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(ordered, pool.map(sha256, ordered), strict=True))


def sha256(uri: str) -> str:
    """SHA-256 (hex) of a file, read in pieces."""
    digest = hashlib.sha256()
    with storage.open_input(uri) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _verify(located: Iterable[list[LocatedFile]], hashes: dict[str, str]) -> None:
    for file in (f for files in located for f in files):
        expected = file.sha256_expected
        if expected and hashes[file.uri] != expected:
            raise SourceError(
                f"{file.uri}: SHA-256 is {hashes[file.uri]}, sources.yaml knows {expected}: "
                "the file was cut, altered or is another version",
                hint="fetch it again, or build from it as it is with data.verify=false",
            )
