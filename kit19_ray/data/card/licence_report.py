"""The licence ledger of a build: what each source's licence forbids, whom to cite, and which files were read."""

from __future__ import annotations

from collections.abc import Mapping

from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.data.filters.licence_policy import forbids
from kit19_ray.sources.catalog import Source
from kit19_ray.tasks.task import Task

_OTHER = "**no**"
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def licences(tasks: Mapping[str, Task]) -> Table:
    """Header and rows: one row a source, with the tasks that are built from it."""
    header = ("source", "tasks", "licence", "commercial use", "derivatives")
    rows: list[tuple[str, ...]] = []
    for source, named in _by_source(tasks):
        name = source.licence.name
        rows.append(
            (
                f"[{source.title}]({source.homepage})",
                ", ".join(named),
                f"[{name}]({source.licence.url})" if source.licence.url else name,
                "yes" if source.licence.commercial else "**no**",
                "yes" if source.licence.derivatives else "**no**",
            )
        )
    return header, rows


def restricted(tasks: Mapping[str, Task]) -> dict[str, list[str]]:
    """Use -> the tasks whose licence forbids it."""
    found: dict[str, list[str]] = {}
    for name, task in tasks.items():
        for use in forbids(task.source.licence):
            found.setdefault(use, []).append(name)
    return found


def notes(tasks: Mapping[str, Task]) -> list[str]:
    """What the catalogue notes of each source that has a note."""
    return [f"- {source.title}: {_line(source.notes)}" for source, _ in _by_source(tasks) if source.notes]


def citations(tasks: Mapping[str, Task]) -> list[str]:
    """Whom to credit, a line a publication with the sources it describes."""
    named: dict[str, list[str]] = {}
    for source, _ in _by_source(tasks):
        named.setdefault(_line(source.citation), []).append(source.title)
    return [f"- {', '.join(titles)}: {citation}" for citation, titles in named.items()]


def files(built: DataManifest, tasks: Mapping[str, Task]) -> Table:
    """Header and rows: every original file with its SHA-256, and whether that is the published file's."""
    header = ("task", "splits", "file", "SHA-256", "published")
    rows: list[tuple[str, ...]] = [
        (name, ", ".join(task["splits"]), f"`{path}`", f"`{sha256}`", _published(tasks[name], path, sha256))
        for name, task in built["tasks"].items()
        for path, sha256 in task["sha256"].items()
    ]
    return header, rows


def is_altered(built: DataManifest, tasks: Mapping[str, Task]) -> bool:
    """Whether some file is known to be another than the published one, so that only `data.verify=false` takes it."""
    return any(row[-1] == _OTHER for row in files(built, tasks)[1])


def _published(task: Task, path: str, sha256: str) -> str:
    known = {f.path: f.sha256 for f in task.source.files} | {
        f.companion: f.companion_sha256 for f in task.source.files if f.companion
    }
    expected = known.get(path)
    return "not known" if expected is None else "yes" if expected == sha256 else _OTHER


def _by_source(tasks: Mapping[str, Task]) -> list[tuple[Source, list[str]]]:
    named: dict[str, list[str]] = {}
    for name, task in tasks.items():
        named.setdefault(task.source_id, []).append(name)
    return [(tasks[names[0]].source, names) for names in named.values()]


def _line(text: str) -> str:
    return " ".join(text.split())
