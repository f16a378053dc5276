"""The data stage, looked at: which files, how many bytes, what is missing, what their licences allow."""

from __future__ import annotations

from typing import TypedDict

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.artifacts.stage_manifests import is_data
from kit19_ray.config.schema import Config
from kit19_ray.data import hub_datasets, stage
from kit19_ray.data.filters import licence_policy
from kit19_ray.data.inputs import collect
from kit19_ray.io import storage
from kit19_ray.lm.prompts import check_prompt
from kit19_ray.preflight.base_model import check_end, check_named
from kit19_ray.preflight.findings import Findings
from kit19_ray.sources.files import sources_uri
from kit19_ray.tasks.task import Task

HASHED_BYTES = 1 << 30  # source files up to this are hashed to name the output; more would take minutes


def data(config: Config, hashing: bool) -> tuple[Findings, DataManifest | None]:
    """What `kit19 data` would do, and the manifest to train on where it is finished.

    Args:
        hashing: hash source files of any size.
    """
    found = Findings("data")
    if config.train.data:
        found.uri, found.state = storage.normalise(config.train.data), "not needed"
        return found, found.check(lambda: manifest.require(str(found.uri), "data"))
    found.check(lambda: check_prompt(config.data.prompt))
    inputs = collect(config, hashed=False, problems=found.missing)
    left_out = {name: reason for name, reason in inputs.skipped.items() if name not in inputs.without_files}
    found.notes += [f"{name} is left out: {reason}" for name, reason in left_out.items()]
    if inputs.without_files:
        names = ", ".join(inputs.without_files)
        found.notes.append(f"left out, their files are missing (data.on_missing=skip): {names}")
    files = {f.uri: f for located in inputs.files.values() for file in located for f in (file, *file.companions)}
    size = sum(file.size for file in files.values())
    found.facts = {
        "tasks": len(inputs.tasks),
        "files": len(files),
        "bytes": size,
        "sources": sources_uri(config),
        "examples_at_most": sum(inputs.quotas.values()),
        "licences": _licences(inputs.tasks),
    }
    if config.data.tokenizer.name:
        check_named(config.data.tokenizer.name, "data.tokenizer.name", "tokenizer_config.json", found)
        check_end(config.data.tokenizer.name, "data.tokenizer.name", found)
    if found.missing:
        found.state = "unknown"
        return found, None
    asked = [
        e.path for e in config.data.datasets if hub_datasets.is_hub_id(e) and not hub_datasets.is_here(config.root, e)
    ]
    if asked:
        found.state = "unknown"
        found.notes.append(f"{', '.join(asked)}: copied from the hub when the build begins")
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
    if not is_data(built):
        return found, None
    found.state = "finished"
    return found, built


class LicenceFacts(TypedDict):
    """A source whose licence forbids something, and the tasks it serves."""

    source: str
    licence: str
    commercial: bool
    derivatives: bool
    tasks: list[str]


def _licences(tasks: dict[str, Task]) -> list[LicenceFacts]:
    """The sources whose licence forbids something, with the tasks they serve."""
    out: dict[str, LicenceFacts] = {}
    for name, task in tasks.items():
        licence = task.source.licence
        if licence_policy.forbids(licence):
            entry: LicenceFacts = {
                "source": task.source_id,
                "licence": licence.name,
                "commercial": licence.commercial,
                "derivatives": licence.derivatives,
                "tasks": [],
            }
            out.setdefault(task.source_id, entry)["tasks"].append(name)
    return list(out.values())
