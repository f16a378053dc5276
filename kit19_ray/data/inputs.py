"""Which original files a build reads: found, hashed, checked against the hashes sources.yaml knows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kit19_ray import storage
from kit19_ray.config import Config
from kit19_ray.errors import DataError, SourceError, nearest
from kit19_ray.sources.catalog import SAMPLES, locate, verify_sha256
from kit19_ray.sources.formats import LocatedFile
from kit19_ray.tasks import Task, load_tasks


@dataclass(frozen=True)
class Inputs:
    """What one build reads.

    Attributes:
        tasks: those with files, by name.
        files: each task's files, in a fixed order.
        sha256: hash of each file by URI, the files read in step with others included.
        skipped: tasks left out, with the reason.
    """

    tasks: dict[str, Task]
    files: dict[str, list[LocatedFile]]
    sha256: dict[str, str]
    skipped: dict[str, str]

    def hashes(self, task: str) -> dict[str, str]:
        """SHA-256 of each of a task's files, by path."""
        return {f.path: self.sha256[f.uri] for file in self.files[task] for f in (file, *file.companions)}


def sources_uri(config: Config) -> str:
    """Where the original files are: the embedded samples, the named folder, or `<root>/sources`."""
    named = config.data.sources
    if named == "samples":
        return storage.normalise(SAMPLES)
    return storage.normalise(named) if named else storage.join(config.root, "sources")


def collect(config: Config, hashed: bool = True) -> Inputs:
    """Finds and hashes every file the config's tasks are built from.

    Args:
        hashed: False leaves the files unread, and so unchecked.

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
    sha256 = _hash_all(files, _checked(config)) if hashed else {}
    return Inputs({n: tasks[n] for n in files}, files, sha256, skipped)


def _checked(config: Config) -> bool:
    """The embedded samples stand under the published names, so no published hash fits them."""
    return config.data.verify and config.data.sources != "samples"


def _hash_all(files: dict[str, list[LocatedFile]], check: bool) -> dict[str, str]:
    found = {f.uri: f for located in files.values() for file in located for f in (file, *file.companions)}
    with ThreadPoolExecutor(8) as pool:
        hashes = pool.map(lambda f: verify_sha256(f, check=check), found.values())
        return dict(zip(found, hashes, strict=True))
