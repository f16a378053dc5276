"""KoBEST's original files as the documents lm-evaluation-harness expects: the fields of skt/kobest_v1 on the hub.

The text is left as it is in the files, outer spaces included, and not normalised as for training: prompts must be the
ones that published scores were measured with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config
from kit19_ray.errors import EvaluateError, SourceError
from kit19_ray.io import node_cache
from kit19_ray.io.files import appearing
from kit19_ray.sources.catalog import Source, load_catalog
from kit19_ray.sources.files import locate, sources_uri, verify_sha256
from kit19_ray.sources.readers.base import LocatedFile, Reject, open_uri
from kit19_ray.sources.readers.delimited import DelimitedOptions, columns, open_table

VERSION = 1  # of the documents; raise it when equal files would give others

LABELS: dict[str, dict[str, int]] = {
    "kobest_boolq": {"false": 0, "true": 1},
    "kobest_copa": {"1": 0, "2": 1},
    "kobest_hellaswag": {"1": 0, "2": 1, "3": 2, "4": 3},
    "kobest_sentineg": {"negative": 0, "positive": 1},
    "kobest_wic": {"false": 0, "true": 1},
}
"""Task, which is the source's id too -> our label -> the hub's."""

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Documents:
    """One task's documents on this machine."""

    files: dict[str, str]
    """Split -> path of a JSONL file."""
    sha256: dict[str, str]
    """Path of each original file below its source -> hash."""


def located(config: Config, task: str) -> list[LocatedFile]:
    """A task's original files: the test split, the one solved examples come from, and what else is there.

    Raises:
        SourceError: a file that is needed is missing.
    """
    source = load_catalog()[task]
    base = sources_uri(config)
    found = locate(task, source, base, ["test"] + (["train"] if config.evaluate.num_fewshot else []))
    have = {file.split for file in found}
    for split in _SPLITS:
        if split in source.splits() and split not in have:
            try:
                found += locate(task, source, base, [split])
            except SourceError:
                continue  # only the splits above are read
    return found


def hashes(config: Config, task: str) -> dict[str, str]:
    """SHA-256 of each of a task's original files.

    Raises:
        SourceError: one is missing or is not the published one.
    """
    check = config.data.verify and config.data.sources != "samples"
    return {file.path: verify_sha256(file, check=check) for file in located(config, task)}


def documents(config: Config, task: str) -> Documents:
    """Writes a task's documents into the cache, unless they are there already.

    Raises:
        SourceError: a file is missing, is not the published one, or has a row that cannot be read.
    """
    source = load_catalog()[task]
    sha256 = hashes(config, task)
    folder = node_cache.folder() / "kobest" / f"{task}-{manifest.digest([VERSION, sha256])[:16]}"
    if not folder.is_dir():
        with appearing(folder) as partial:
            partial.mkdir()
            for file in located(config, task):
                rows = list(read(task, source, file))
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (partial / f"{file.split}.jsonl").write_text(text, encoding="utf-8")
    return Documents({path.stem: str(path) for path in sorted(folder.glob("*.jsonl"))}, sha256)


def read(task: str, source: Source, file: LocatedFile) -> Iterator[dict[str, Any]]:
    """The documents of one original file, in its order.

    Raises:
        SourceError: a row cannot be read. A benchmark that lost a row is another benchmark.
    """
    options = DelimitedOptions.model_validate({**source.options, **file.options})
    with closing(open_uri(file.uri, None)) as stream:
        table = open_table(options, file, stream)
        places = columns(options, table)
        for row in table:
            if isinstance(row, Reject):
                raise SourceError(f"{file.uri}, line {row.line}: {row.reason}: {row.row[:80]}")
            document: dict[str, Any] = {name: row.cells[place] for name, place in places}
            ours = options.labels["label"].get(document["label"].strip())
            if ours is None:
                raise SourceError(
                    f"{file.uri}, line {row.line}: label {document['label']!r} is not one of "
                    f"{', '.join(options.labels['label'])}"
                )
            yield {**document, "label": LABELS[task][ours]}


def overrides(config: Config, task: str) -> dict[str, Any]:
    """The task's entry for the harness: its own definition, reading our files."""
    if config.evaluate.source == "hub":
        return {"task": task}
    files = documents(config, task).files
    cache = node_cache.folder() / "datasets"
    return {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(cache)},
    }


def check_source(config: Config, tasks: list[str]) -> None:
    """Refuses tasks whose documents are only on the hub while `evaluate.source` is `files`.

    Raises:
        EvaluateError: see above.
    """
    others = [task for task in tasks if task not in LABELS]
    if others and config.evaluate.source == "files":
        raise EvaluateError(
            f"evaluate.tasks: {', '.join(others)}: its documents are on the hub, and evaluate.source is 'files'",
            hint="set evaluate.source=hub, or keep to " + ", ".join(LABELS),
        )
