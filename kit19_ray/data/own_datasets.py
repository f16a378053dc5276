"""`data.datasets`: a user's instruction data as tasks without a task file.

An entry becomes a task with one template that shows a row as it is, and a source of the files its path names; from
there on it is a task like KIT-19's, through the same gates, quotas and card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kit19_ray.config.schema import DatasetConfig
from kit19_ray.data import hub_datasets
from kit19_ray.errors import SourceError, nearest, quote
from kit19_ray.io import storage
from kit19_ray.sources.catalog import Licence, Source, SourceFile
from kit19_ray.sources.readers import instructions
from kit19_ray.sources.readers.base import LocatedFile
from kit19_ray.tasks.task import Task, TaskSpec, Template
from kit19_ray.utils.json_types import Json

_PERMISSIVE = frozenset(
    {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc0", "cc-by-4.0", "cc-by-sa-4.0", "odc-by", "own"}
)
_FIELDS: dict[str, list[str]] = {
    "alpaca": ["instruction", "input", "output"],
    "sharegpt": ["messages"],
    "messages": ["messages"],
    "text": ["text"],
}
_TEMPLATES: dict[str, Json] = {
    "alpaca": {"instruction": "{{ instruction }}", "input": "{{ input }}", "outputs": ["{{ output }}"]},
    "sharegpt": {"instruction": "{{ messages }}", "outputs": ["{{ messages }}"]},
    "messages": {"instruction": "{{ messages }}", "outputs": ["{{ messages }}"]},
    "text": {"instruction": "{{ text }}", "outputs": ["{{ text }}"]},
}


def name_of(entry: DatasetConfig) -> str:
    """The task's name: the entry's, else its path's last part in snake_case."""
    if entry.name is not None:
        return entry.name
    last = entry.path.rstrip("/").rpartition("/")[2].partition(".")[0]
    name = re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")
    return name if name and name[0].isalpha() else f"own_{name or 'data'}"


def tasks(entries: Iterable[DatasetConfig], taken: Iterable[str]) -> dict[str, Task]:
    """The entries as tasks by name, sorted.

    Args:
        taken: names of the other tasks.

    Raises:
        SourceError: two tasks have one name.
    """
    names, found = set(taken), {}
    for entry in entries:
        name = name_of(entry)
        if name in names:
            raise SourceError(f"data.datasets: there is a task {quote(name)} already", hint="give this one a `name`")
        names.add(name)
        found[name] = _task(name, entry)
    return dict(sorted(found.items()))


def _of_split(entry: DatasetConfig, found: list[LocatedFile], on_hub: bool) -> list[LocatedFile]:
    paths = [file.path for file in found]
    wanted = hub_datasets.of_split(paths, entry.split or ("train" if on_hub else None))
    if not wanted and entry.split is None:
        wanted = paths  # a hub's dataset whose files are not named by splits
    if found and not wanted:
        raise SourceError(
            f"data.datasets: {entry.path}: no file of the split {quote(entry.split)}",
            hint=f"its files: {', '.join(paths[:5])}{', ...' if len(paths) > 5 else ''}",
        )
    return [file for file in found if file.path in set(wanted)]


def _task(name: str, entry: DatasetConfig) -> Task:
    licence = entry.licence.lower()
    allowed = licence in _PERMISSIVE
    source = Source(
        title=name,
        homepage="",
        licence=Licence(
            name=entry.licence,
            commercial=allowed,
            derivatives=allowed or (licence.startswith("cc-by-nc") and "nd" not in licence),
        ),
        citation=f"{name}, the builder's own data",
        reader="instructions",
        options={"format": entry.format, "columns": entry.columns},
        files=[SourceFile(path="*", split="train")],
    )
    spec = TaskSpec(
        category=entry.category,
        description="Own data",
        source=source,
        splits=["train"],
        fields=_FIELDS[entry.format],
        optional=["input"] if entry.format == "alpaca" else [],
        templates=[Template(name="as_it_is", kind="open", **_TEMPLATES[entry.format])],
        metrics=["chrf"],
    )
    return Task(name=name, spec=spec, source_id=name, source=source)


def locate(entry: DatasetConfig, root: str) -> list[LocatedFile]:
    """The files of an entry: the one it names, or all of a folder that can be read, sorted by name.

    Args:
        root: below which copies from the hub are.

    Raises:
        SourceError: there is none.
    """
    on_hub = hub_datasets.is_hub_id(entry)
    if on_hub and not hub_datasets.is_here(root, entry):
        raise SourceError(f"data.datasets: {entry.path} is not copied from the hub yet", hint="`kit19 data` does it")
    base = hub_datasets.prefix(root, entry) if on_hub else storage.normalise(entry.path)
    if storage.exists(base) and not storage.is_dir(base):
        path = base.rpartition("/")[2]
        found = [LocatedFile(base, path, "train", storage.size(base) or 0)]
    else:
        found = [
            LocatedFile(storage.join(base, info.path), info.path, "train", info.size)
            for info in storage.list_files(base)
            if instructions.ending(info.path) and not any(part.startswith((".", "_")) for part in info.path.split("/"))
        ]
        found = _of_split(entry, found, on_hub)
    if not found:
        there = [info.path for info in storage.list_files(base.rpartition("/")[0])][:100] if "/" in base else []
        last = base.rpartition("/")[2]
        raise SourceError(
            f"data.datasets: {entry.path}: no such file, and no folder with files that can be read"
            f"{nearest(last, there)}",
            hint=f"files end in {', '.join(instructions.ENDINGS)}, and .gz or .zst may follow",
        )
    return found
