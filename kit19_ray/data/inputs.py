"""What a build reads: its tasks with their quotas, their files and the evaluation sets', found, hashed and checked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from kit19_ray.config.schema import Config
from kit19_ray.data import hub_datasets, mixture, own_datasets, source_parts
from kit19_ray.data.filters import licence_policy
from kit19_ray.data.source_parts import FilePart
from kit19_ray.errors import DataError, SourceError, UserError, nearest, quote
from kit19_ray.sources import evaluation_sets
from kit19_ray.sources.evaluation_sets import Located
from kit19_ray.sources.files import check_published, locate, sources_uri, verify_sha256
from kit19_ray.sources.readers.base import LocatedFile
from kit19_ray.tasks.task import Task, load_tasks, withhold


@dataclass(frozen=True)
class Inputs:
    """What one build reads.

    Attributes:
        tasks: those with files, by name.
        files: each task's files, in a fixed order.
        sha256: hash of each file by URI, the files read in step with others included.
        parts: each task's files in parts, in the order of the files.
        skipped: tasks left out, with the reason.
        without_files: those of them whose files are missing, which `data.on_missing=skip` allows.
        quotas: training examples wanted per task.
        splits: source splits drawn from per task.
        evaluation: the sets no row may hold an item of; empty when nothing is decontaminated.
        absent: names of the sets whose files are not at hand.
    """

    tasks: dict[str, Task]
    files: dict[str, list[LocatedFile]]
    sha256: dict[str, str]
    parts: dict[str, list[FilePart]]
    skipped: dict[str, str]
    quotas: dict[str, int]
    splits: dict[str, list[str]]
    evaluation: list[Located] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    without_files: list[str] = field(default_factory=list)

    def evaluation_hashes(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each evaluation set's files, by path."""
        return {found.name: found.sha256 for found in self.evaluation}

    def hashes(self, task: str) -> dict[str, str]:
        """SHA-256 of each of a task's files, by path."""
        return {f.path: self.sha256[f.uri] for file in self.files[task] for f in (file, *file.companions)}


def collect(config: Config, hashed: bool = True, problems: list[UserError] | None = None) -> Inputs:
    """Finds and hashes every file the config's tasks are built from.

    Args:
        hashed: False leaves the files unread, and so unchecked; a hub's dataset that was not copied yet has none then.
        problems: takes what would be raised, each once, and the rest is looked at all the same: a task whose files are
            missing then stays, with none. For `kit19 plan`, which says everything at once.

    Raises:
        TaskError: an unknown task.
        SourceError: a file is missing (unless `data.on_missing` is skip) or has another SHA-256 than is known.
        DataError: no task has files, or a per-task setting names no task of the build.
    """
    data = config.data
    tasks: dict[str, Task] = {}
    with _noted(problems):
        tasks = withhold(load_tasks(data.tasks, data.tasks_dir), data.held_out_templates)
    with _noted(problems):
        tasks |= own_datasets.tasks(data.datasets, tasks)
    entries = {own_datasets.name_of(entry): entry for entry in data.datasets}
    tasks = dict(sorted(tasks.items()))
    for name in data.splits:
        with _noted(problems):
            if name not in tasks:
                raise DataError(f"data.splits: {quote(name)} is no task of this build{nearest(name, tasks)}")
    weights = {name: entry.weight for name, entry in entries.items() if entry.weight is not None}
    quotas: dict[str, int] = dict.fromkeys(tasks, data.quota)
    with _noted(problems):
        quotas = mixture.quotas(data, {name: task.spec.category for name, task in tasks.items()}, weights)
    skipped: dict[str, str] = {}
    with _noted(problems):
        skipped = licence_policy.excluded(tasks, data.licence_policy, data.tasks)
    skipped |= {name: "data.weights gives it no example" for name, quota in quotas.items() if not quota}
    base, root = sources_uri(config), config.root
    files: dict[str, list[LocatedFile]] = {}
    without_files: list[str] = []
    for name, task in tasks.items():
        if name in skipped:
            continue
        with _noted(problems):
            files[name] = []
            try:
                if name not in entries:
                    files[name] = _locate(config, name, task, base)
                elif hashed or not hub_datasets.is_hub_id(entries[name]) or hub_datasets.is_here(root, entries[name]):
                    files[name] = own_datasets.locate(entries[name], root)
            except SourceError as missing:
                if data.on_missing == "fail":
                    raise
                del files[name]
                skipped[name] = missing.message
                without_files.append(name)
    with _noted(problems):
        if not files and not problems:  # of those, one has said why already
            raise DataError(
                f"none of the {len(tasks)} tasks can be built from {base}",
                hint="\n".join(f"{name}: {reason}" for name, reason in skipped.items()),
            )
    sha256, parts = _measure(tasks, files, _checked(config)) if hashed else ({}, {})
    sets: list[Located] = []
    absent: list[str] = []
    if hashed and data.gates.decontaminate and data.ablation == "none":
        sets, absent = evaluation_sets.find(base, _checked(config), _drawn(tasks, files))
    return Inputs(
        tasks={name: tasks[name] for name in files},
        files=files,
        sha256=sha256,
        parts=parts,
        skipped=skipped,
        quotas={name: quotas[name] for name in files},
        splits={name: list(dict.fromkeys(file.split for file in located)) for name, located in files.items()},
        evaluation=sets,
        absent=absent,
        without_files=without_files,
    )


@contextmanager
def _noted(problems: list[UserError] | None) -> Iterator[None]:
    """The block, whose UserError goes to `problems` where that is given, unless it is there already."""
    try:
        yield
    except UserError as error:
        if problems is None:
            raise
        if all(str(error) != str(known) for known in problems):
            problems.append(error)


def _locate(config: Config, name: str, task: Task, base: str) -> list[LocatedFile]:
    """A task's files: those of the splits it trains on; with the ablation, those of every other split there is too."""
    wanted = config.data.splits.get(name, list(task.spec.splits))
    encoding = config.data.encoding.get(task.source_id)
    found = locate(task.source_id, task.source, base, wanted, encoding)
    if config.data.ablation == "with-test":
        for split in (s for s in task.source.splits() if s not in wanted):
            with suppress(SourceError):  # what is not at hand leaks nothing
                found += locate(task.source_id, task.source, base, [split], encoding)
    return found


def _drawn(tasks: dict[str, Task], files: dict[str, list[LocatedFile]]) -> dict[str, set[str]]:
    """Splits that the build draws from, by source."""
    drawn: dict[str, set[str]] = {}
    for name, located in files.items():
        drawn.setdefault(tasks[name].source_id, set()).update(file.split for file in located)
    return drawn


def _checked(config: Config) -> bool:
    """The embedded samples stand under the published names, so no published hash fits them."""
    return config.data.verify and config.data.sources != "samples"


def _measure(
    tasks: dict[str, Task], files: dict[str, list[LocatedFile]], check: bool
) -> tuple[dict[str, str], dict[str, list[FilePart]]]:
    """The hash of every file by URI, and each task's files in parts; a file of two tasks is read once."""
    beside = {f.uri: f for located in files.values() for file in located for f in file.companions}
    read = {(tasks[name].source_id, f.uri): (tasks[name].source, f) for name, found in files.items() for f in found}
    with ThreadPoolExecutor(8) as pool:
        hashes = dict(zip(beside, pool.map(lambda f: verify_sha256(f, check=check), beside.values()), strict=True))
        measured = dict(zip(read, pool.map(lambda pair: source_parts.measure(*pair), read.values()), strict=True))
    parts: dict[str, list[FilePart]] = {name: [] for name in files}
    for name, found in files.items():
        for file in found:
            sha256, size, cut = measured[tasks[name].source_id, file.uri]
            if check:
                check_published(file, sha256, size)
            hashes[file.uri] = sha256
            companions = tuple((f.uri, hashes[f.uri]) for f in file.companions)
            parts[name] += [replace(part, companions=companions) for part in cut]
    return hashes, parts
