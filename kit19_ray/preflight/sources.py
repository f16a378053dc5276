"""The data stage, looked at: which files, how many bytes, what is missing, what their licences allow."""

from __future__ import annotations

from functools import partial
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config
from kit19_ray.data import mixture, stage
from kit19_ray.data.filters import licence_policy
from kit19_ray.io import storage
from kit19_ray.lm.prompts import check_prompt
from kit19_ray.preflight.base_model import check_named
from kit19_ray.preflight.findings import Findings
from kit19_ray.sources.files import locate, sources_uri
from kit19_ray.sources.readers.base import LocatedFile
from kit19_ray.tasks.task import Task, load_tasks

HASHED_BYTES = 1 << 30  # source files up to this are hashed to name the output; more would take minutes


def data(config: Config, hashing: bool) -> tuple[Findings, dict[str, Any] | None]:
    """What `kit19 data` would do, and the manifest to train on where it is finished.

    Args:
        hashing: hash source files of any size.
    """
    found = Findings("data")
    if config.train.data:
        found.uri, found.state = storage.normalise(config.train.data), "not needed"
        return found, found.check(lambda: manifest.require(str(found.uri), "data"))
    found.check(lambda: check_prompt(config.data.prompt))
    every = found.check(lambda: load_tasks(config.data.tasks, config.data.tasks_dir)) or {}
    categories = {name: task.spec.category for name, task in every.items()}
    quotas = found.check(lambda: mixture.quotas(config.data, categories)) or {}
    barred = found.check(lambda: licence_policy.excluded(every, config.data.licence_policy, config.data.tasks)) or {}
    found.notes += [f"{name} is left out: {reason}" for name, reason in barred.items()]
    tasks = {name: task for name, task in every.items() if name not in barred and quotas.get(name)}
    files = _files(config, tasks, found)
    size = sum(file.size for file in files.values())
    found.facts = {
        "tasks": len(tasks),
        "files": len(files),
        "bytes": size,
        "sources": sources_uri(config),
        "examples_at_most": sum(quotas[name] for name in tasks),
        "licences": _licences(tasks),
    }
    if config.data.tokenizer.name:
        check_named(config.data.tokenizer.name, "data.tokenizer.name", "tokenizer_config.json", found)
    if found.missing:
        found.state = "unknown"
        return found, None
    if size > HASHED_BYTES and not hashing:
        found.state = "unknown"
        found.notes.append(
            f"the sources are {size / 1e9:.1f} GB and were not hashed, so the output is not named: --hash does it"
        )
        return found, None
    found.uri = found.check(lambda: stage.uri(config))
    if found.uri is None:
        found.state = "unknown"
        return found, None
    built = found.check(lambda: manifest.read(str(found.uri)))
    if built is not None:
        found.state = "finished"
    return found, built


def _files(config: Config, tasks: dict[str, Task], found: Findings) -> dict[str, LocatedFile]:
    """Every file that is there, by URI; a source's missing ones go to `found`."""
    files: dict[str, LocatedFile] = {}
    skipped: list[str] = []
    for name, task in tasks.items():
        splits = config.data.splits.get(name, list(task.spec.splits))
        looked = Findings(name)
        located = looked.check(partial(locate, task.source_id, task.source, sources_uri(config), splits))
        for file in located or []:
            files |= {f.uri: f for f in (file, *file.companions)}
        if looked.missing and config.data.on_missing == "skip":
            skipped.append(name)
        elif looked.missing:
            known = {str(error) for error in found.missing}
            found.missing += [error for error in looked.missing if str(error) not in known]
    if skipped:
        found.notes.append(f"left out, their files are missing (data.on_missing=skip): {', '.join(skipped)}")
    return files


def _licences(tasks: dict[str, Task]) -> list[dict[str, Any]]:
    """The sources whose licence forbids something, with the tasks they serve."""
    out: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        licence = task.source.licence
        if not (licence.commercial and licence.derivatives):
            entry = {
                "source": task.source_id,
                "licence": licence.name,
                "commercial": licence.commercial,
                "derivatives": licence.derivatives,
                "tasks": [],
            }
            out.setdefault(task.source_id, entry)["tasks"].append(name)
    return list(out.values())
