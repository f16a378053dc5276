"""`kit19 tasks show NAME`: all there is to know of one task, each template with a rendered example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypedDict

from kit19_ray.artifacts.schemas import ExampleRow
from kit19_ray.config.schema import Config
from kit19_ray.data import mixture
from kit19_ray.data.examples import Planned, render
from kit19_ray.data.filters.licence_policy import forbids
from kit19_ray.data.records import Record, to_record
from kit19_ray.errors import SourceError, TaskError, nearest
from kit19_ray.io import storage
from kit19_ray.redaction import without_secrets
from kit19_ray.sources.files import SAMPLES, locate, sources_uri
from kit19_ray.sources.readers.base import SourceRow
from kit19_ray.tasks.task import Task, Template, load_tasks
from kit19_ray.utils.console import stdout
from kit19_ray.utils.json_types import Json

SEED = 19  # of the shown examples' phrasings
_UNKNOWN = "the sources folder (set root= or data.sources= to look for them)"
_ROWS = 1000  # read at most for the examples; the samples have fewer


class DescribedField(TypedDict):
    """A field of a task; `limit` is where it is cut, in characters."""

    name: str
    optional: bool
    answer: bool
    limit: int | None


class DescribedFile(TypedDict):
    """A file of a task's source: what is published, and what of it is in the folder, with sizes."""

    path: str
    split: str
    used: bool
    optional: bool
    bytes: int | None
    sha256: str | None
    url: str | None
    present: bool | None
    found: dict[str, int]


class Described(TypedDict):
    """A task, its source and its templates; `source`, `licence` and `templates` have the catalogue's own keys."""

    task: str
    category: str
    description: str
    source: Json
    licence: Json
    citation: str
    sources: str | None
    files: list[DescribedFile]
    fields: list[DescribedField]
    splits: list[str]
    quota: int
    choices: dict[str, str] | None
    choice_fields: list[str] | None
    metrics: list[str]
    templates: list[Json]


def describe(config: Config, name: str) -> Described:
    """Everything of the task `name`, JSON-ready; `present` of a file is None when no sources folder is configured.

    Raises:
        TaskError: there is no such task.
    """
    tasks = load_tasks(None, config.data.tasks_dir)
    if name not in tasks:
        raise TaskError(f"{name!r} is no task{nearest(name, tasks)}; known: {', '.join(tasks)}")
    task = tasks[name]
    spec, source = task.spec, task.source
    base = sources_uri(config) if config.root or config.data.sources else None
    splits = config.data.splits.get(name, list(spec.splits))
    held = sample_records(task, base)
    return {
        "task": name,
        "category": spec.category,
        "description": spec.description,
        "source": {"id": task.source_id} | {k: getattr(source, k) for k in ("title", "homepage", "reader", "notes")},
        "licence": source.licence.model_dump() | {"forbids": forbids(source.licence)},
        "citation": source.citation,
        "sources": base,
        "files": _files(task, splits, base),
        "fields": [
            {"name": f, "optional": f in spec.optional, "answer": f == spec.answer, "limit": spec.limits.get(f)}
            for f in spec.fields
        ],
        "splits": splits,
        "quota": mixture.quotas(config.data, {n: t.spec.category for n, t in tasks.items()})[name],
        "choices": spec.choices,
        "choice_fields": spec.choice_fields,
        "metrics": list(spec.metrics),
        "templates": [
            template.model_dump() | {"example": sample_example(task, template, held, number)}
            for number, template in enumerate(spec.templates, 1)
        ],
    }


def sample_records(task: Task, base: str | None = None) -> list[Record]:
    """Records of the embedded samples, in file order; of the sources folder `base` for a task that has no samples."""
    for folder in (storage.normalise(SAMPLES), base):
        try:
            files = locate(task.source_id, task.source, folder, task.spec.splits) if folder else []
        except SourceError:
            continue  # a task of the user's own has no samples, and its files may not be there yet
        raws = (
            to_record(task, f.path, raw) for f in files for raw in task.source.read(f) if isinstance(raw, SourceRow)
        )
        return [record for record in islice(raws, _ROWS) if isinstance(record, Record)]
    return []


def sample_example(task: Task, template: Template, held: Sequence[Record], number: int) -> ExampleRow | None:
    """A template's example, in the columns of `rows.EXAMPLE_SCHEMA`, or None when no record fits.

    Args:
        held: records to choose from.
        number: the template's place; each shows another record, so that the labels vary.
    """
    fitting = [record for record in held if template.applies(record.fields)]
    if not fitting:
        return None
    return render(task, Planned(fitting[number % len(fitting)], template, 0), "train", SEED)


def _files(task: Task, splits: Sequence[str], base: str | None) -> list[DescribedFile]:
    """The source's files: what is published, whether this task trains on it, and what of it is in the folder."""
    folder = storage.join(base, task.source_id) if base else None
    sizes = {info.path: info.size for info in storage.list_files(folder)} if folder else {}
    rows: list[DescribedFile] = []
    for file in task.source.files:
        found = task.source.match(file, sizes)
        rows.append(
            {
                "path": file.path,
                "split": file.split,
                "used": file.split in splits,
                "optional": file.optional,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "url": without_secrets(file.url) if file.url else None,
                "present": bool(found) if base else None,
                "found": {path: sizes[path] for path in found},
            }
        )
    return rows


def show(described: Described) -> None:
    """Prints the description to stdout."""
    from rich.text import Text

    console = stdout()
    for line, style in _lines(described):
        console.print(Text(line, style))


def _lines(described: Described) -> Iterator[tuple[str, str]]:
    """(line, style) pairs."""
    source, licence = described["source"], described["licence"]
    yield described["task"], "bold"
    yield described["description"], ""
    yield "", ""
    yield from _pairs(
        [
            ("category", described["category"]),
            ("source", f"{source['id']}: {source['title']}, {source['homepage']}"),
            ("licence", f"{licence['name']}{_see(licence['url'])}"),
            ("forbids", " and ".join(licence["forbids"]) or "neither commercial use nor derivatives"),
            ("cite", " ".join(described["citation"].split())),
            ("note", " ".join(source["notes"].split())),
            ("trained on", ", ".join(described["splits"]) + f" split, {described['quota']:,} examples at most"),
            ("fields", ", ".join(map(_field, described["fields"]))),
            ("choices", _choices(described)),
            ("metrics", ", ".join(described["metrics"])),
        ]
    )
    yield "", ""
    yield (
        f"files in {described['sources'] or 'the sources folder (set root= or data.sources= to look for them)'}",
        "bold",
    )
    for file in described["files"]:
        yield f"  {_file(file)}", "" if file["used"] else "dim"
    for number, template in enumerate(described["templates"], 1):
        yield "", ""
        yield f"{number}. {template['name']} ({', '.join(_traits(template))})", "bold"
        yield from _example(template["example"])


def _pairs(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        if value:
            yield f"{name:{width}}{value}", ""


def _see(url: str | None) -> str:
    return f", {url}" if url else ""


def _field(field: DescribedField) -> str:
    limit = f"cut at {field['limit']:,} characters" if field["limit"] else ""
    traits = [t for t in ("answer" * field["answer"], "optional" * field["optional"], limit) if t]
    return f"{field['name']} ({', '.join(traits)})" if traits else str(field["name"])


def _choices(described: Described) -> str:
    if described["choice_fields"]:
        return "one of the fields " + ", ".join(described["choice_fields"])
    return ", ".join(f"{label} {word!r}" for label, word in (described["choices"] or {}).items())


def _file(file: DescribedFile) -> str:
    if file["present"] is None:
        state = ""
    elif file["present"]:
        many = f"{len(file['found'])} files, " if len(file["found"]) > 1 else ""
        state = f"present ({many}{sum(file['found'].values()):,} bytes)"
    else:
        state = "absent" + (", optional" if file["optional"] else "")
    use = file["split"] if file["used"] else f"{file['split']}, not used"
    return "  ".join(part for part in (file["path"], f"[{use}]", state, file["url"] or "") if part)


def _traits(template: Json) -> list[str]:
    conditions = [f"{name} {_condition(wanted)}" for name, wanted in template["requires"].items()]
    return [template["kind"], *(["free answer"] if template["generation"] else []), *conditions]


def _condition(wanted: list[str] | dict[str, str | None]) -> str:
    if isinstance(wanted, list):
        return f"is {' or '.join(wanted)}"
    parts = {"matches": "has", "lacks": "lacks"}
    return " and ".join(f"{verb} {wanted[key]}" for key, verb in parts.items() if wanted[key])


def _example(example: ExampleRow | None) -> Iterator[tuple[str, str]]:
    if example is None:
        yield "   no record at hand fits it", "dim"
        return
    parts = [("instruction", example["instruction"], ""), ("input", example["input"], "")]
    parts.append(("output", example["output"], "green"))
    others = [c for i, c in enumerate(example["candidates"]) if i != example["label"]]
    parts += [("or", other, "dim") for other in others]
    for name, text, style in parts:
        for i, line in enumerate(text.splitlines()):
            yield f"   {name if i == 0 else '':13}{line}", style
