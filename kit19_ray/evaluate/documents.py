"""KoBEST's and KLUE's original files as the documents lm-evaluation-harness expects: the fields of the hub's copies.

The text is left as it is in the files, outer spaces included, and not normalised as for training: prompts must be the
ones that published scores were measured with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config
from kit19_ray.errors import EvaluateError, SourceError, quote
from kit19_ray.evaluate.suites import KLUE, KOBEST
from kit19_ray.io import node_cache, storage
from kit19_ray.io.files import appearing
from kit19_ray.sources import evaluation_sets
from kit19_ray.sources.catalog import Source, load_catalog
from kit19_ray.sources.files import locate, sources_uri, verify_sha256
from kit19_ray.sources.readers.base import LocatedFile, RejectedRow, open_uri
from kit19_ray.sources.readers.delimited import DelimitedOptions, columns, open_table
from kit19_ray.utils.json_types import Json

VERSION = 2  # of the documents; raise it when equal files would give others

LABELS: dict[str, dict[str, int]] = {
    "kobest_boolq": {"false": 0, "true": 1},
    "kobest_copa": {"1": 0, "2": 1},
    "kobest_hellaswag": {"1": 0, "2": 1, "3": 2, "4": 3},
    "kobest_sentineg": {"negative": 0, "positive": 1},
    "kobest_wic": {"false": 0, "true": 1},
}
"""KoBEST's task, which is the source's id too -> our label -> the hub's."""

YNAT = ("IT과학", "경제", "사회", "생활문화", "세계", "스포츠", "정치")
"""Categories of YNAT's file in the order in which the hub numbers them."""
TASKS = (*KOBEST, *KLUE)
"""Tasks whose documents are read from original files."""
_SPLITS = ("train", "validation", "test")
_KLUE_TRAIN = {"klue_sts": "klue-sts-v1.1_train.json", "klue_ynat": "ynat-v1.1_train.json"}


@dataclass(frozen=True)
class Documents:
    """One task's documents on this machine."""

    files: dict[str, str]
    """Split -> path of a JSONL file."""
    sha256: dict[str, str]
    """Path of each original file below its source -> hash."""


def tested(task: str) -> str:
    """The split that a task is scored on: KLUE's test labels are not public."""
    return "validation" if task in KLUE else "test"


def choices(task: str) -> int:
    """How many choices each document of a task has."""
    return len(LABELS[task]) if task in LABELS else {"klue_sts": 2, "klue_ynat": len(YNAT)}[task]


def source_of(task: str) -> Source:
    """Where a task's files are described."""
    if task in KLUE:
        found = evaluation_sets.load()[task].source
        if isinstance(found, Source):
            return found
    return load_catalog()[task]


def located(config: Config, task: str) -> list[LocatedFile]:
    """A task's original files: the split it is scored on, the one solved examples come from, and what else is there.

    Raises:
        SourceError: a file that is needed is missing.
    """
    source, folder, base = source_of(task), _folder(task), sources_uri(config)
    shots = any(config.evaluate.num_fewshot)
    if task in KLUE:
        return [*locate(folder, source, base, [tested(task)]), *_klue_train(task, source, base, needed=shots)]
    found = locate(folder, source, base, ["test"] + (["train"] if shots else []))
    have = {file.split for file in found}
    for split in _SPLITS:
        if split in source.splits() and split not in have:
            try:
                found += locate(folder, source, base, [split])
            except SourceError:
                continue  # only the splits above are read
    return found


def _folder(task: str) -> str:
    return evaluation_sets.load()[task].folder or task if task in KLUE else task


def _klue_train(task: str, source: Source, base: str, needed: bool) -> list[LocatedFile]:
    """KLUE's training file, which only solved examples need; the evaluation sets list what is scored."""
    name = _KLUE_TRAIN[task]
    folder = storage.join(base, _folder(task))
    sizes = {info.path: info.size for info in storage.list_files(folder)}
    if name in sizes:
        return [LocatedFile(storage.join(folder, name), name, "train", sizes[name])]
    if needed:
        beside = (source.files[0].url or source.homepage).rsplit("/", 1)[0]
        raise SourceError(
            f"{task}: solved examples (evaluate.num_fewshot) come from {name}, which is not in {folder}",
            hint=f"put it there, from {beside}/{name}, or set evaluate.source=hub",
        )
    return []


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
    sha256 = hashes(config, task)
    folder = node_cache.folder() / "documents" / f"{task}-{manifest.digest([VERSION, sha256])[:16]}"
    if not folder.is_dir():
        with appearing(folder) as partial:
            partial.mkdir()
            for file in located(config, task):
                rows = list(read(task, file))
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                (partial / f"{file.split}.jsonl").write_text(text, encoding="utf-8")
    return Documents({path.stem: str(path) for path in sorted(folder.glob("*.jsonl"))}, sha256)


Document = dict[str, Any]
"""A benchmark's document under the names of the hub's data set, which each task has of its own."""


def read(task: str, file: LocatedFile) -> Iterator[Document]:
    """The documents of one original file, in its order.

    Raises:
        SourceError: a row cannot be read. A benchmark that lost a row is another benchmark.
    """
    if task in KLUE:
        yield from _read_klue(task, file)
        return
    options = DelimitedOptions.model_validate({**source_of(task).options, **file.options})
    with closing(open_uri(file.uri, None)) as stream:
        table = open_table(options, file, stream)
        places = columns(options, table)
        for row in table:
            if isinstance(row, RejectedRow):
                raise SourceError(f"{file.uri}, line {row.line}: {row.reason}: {row.row[:80]}")
            document: Document = {name: row.cells[place] for name, place in places}
            ours = options.labels["label"].get(document["label"].strip())
            if ours is None:
                raise SourceError(
                    f"{file.uri}, line {row.line}: label {quote(document['label'])} is not one of "
                    f"{', '.join(options.labels['label'])}"
                )
            yield {**document, "label": LABELS[task][ours]}


def _read_klue(task: str, file: LocatedFile) -> Iterator[Document]:
    """KLUE's JSON array: the hub's fields, YNAT's category as the hub's number."""
    with closing(open_uri(file.uri, None)) as stream:
        try:
            rows = json.load(stream)
        except ValueError as error:
            raise SourceError(f"{file.uri} is no JSON: {error}") from None
    if not isinstance(rows, list):
        raise SourceError(f"{file.uri}: KLUE's files are JSON arrays, this is a {type(rows).__name__}")
    for number, row in enumerate(rows):
        try:
            yield _klue_document(task, row)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"{file.uri}, item {number}: no document of {task}: {quote(error)}"[:300]) from None


def _klue_document(task: str, row: Mapping[str, Any]) -> Document:
    if task == "klue_ynat":
        return {"guid": row["guid"], "title": row["title"], "label": YNAT.index(row["label"])}
    label = row["labels"]["binary-label"]
    if label not in (0, 1):
        raise ValueError(f"binary-label {quote(label)} is neither 0 nor 1")
    pair = {name: row[name] for name in ("guid", "sentence1", "sentence2")}
    return {**pair, "labels": {"binary-label": label}}


def overrides(config: Config, task: str) -> Json:
    """The task's entry for the harness: its own definition, reading our files."""
    if config.evaluate.source == "hub":
        return {"task": task}
    files = documents(config, task).files
    cache = node_cache.folder() / "datasets"
    out: Json = {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(cache)},
    }
    # Without the file that solved examples come from none are asked for (see `located`), and none are to be looked for.
    return out if "train" in files else out | {"training_split": None, "fewshot_split": None}


def check_source(config: Config, tasks: list[str]) -> None:
    """Refuses tasks whose documents are only on the hub while `evaluate.source` is `files`.

    Tasks of `evaluate.include_path` bring their documents themselves, or say where they are.

    Raises:
        EvaluateError: see above.
    """
    others = [task for task in tasks if task not in TASKS]
    if others and config.evaluate.source == "files" and not config.evaluate.include_path:
        raise EvaluateError(
            f"evaluate.tasks: {', '.join(others[:8])}: its documents are on the hub, and evaluate.source is 'files'",
            hint="set evaluate.source=hub, or keep to " + ", ".join(TASKS),
        )
