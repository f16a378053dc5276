"""Task files: one YAML per task, its stem the task's name, found by walking the folder.

A task says which fields of which source make a record, what the answers are, and the templates that turn a record
into an instruction, an input and an output. A 21st task is one more file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kit19_ray.config import strict_yaml
from kit19_ray.config.loading import validate
from kit19_ray.errors import TaskError, nearest, quote
from kit19_ray.sources.catalog import Source, load_catalog
from kit19_ray.tasks import templates

DEFINITIONS = Path(__file__).parent / "definitions"

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class FieldCondition(BaseModel):
    """What a field must look like; regular expressions that are searched for in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    matches: str | None = None
    """Found in the field."""
    lacks: str | None = None
    """Not found in it."""

    @model_validator(mode="after")
    def _says_something(self) -> FieldCondition:
        if self.matches is None and self.lacks is None:
            raise ValueError("a condition needs `matches` or `lacks`")
        for pattern in (self.matches, self.lacks):
            try:
                re.compile(pattern or "")
            except re.error as problem:
                raise ValueError(f"{quote(pattern)} is no regular expression: {problem}") from None
        return self

    def holds(self, text: str) -> bool:
        """Whether `text` is as it says."""
        if self.matches is not None and not re.search(self.matches, text):
            return False
        return self.lacks is None or not re.search(self.lacks, text)


class Template(BaseModel):
    """One way to ask."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Unique in its file."""
    kind: Literal["closed", "open"]
    """closed: the prompt lists the choices; open: it does not."""
    instruction: str
    """Jinja over the record's fields and `choices`."""
    input: str = ""
    """Jinja over the record's fields and `choices`."""
    outputs: list[str] = Field(min_length=1)
    """Phrasings of the answer, one chosen by hash. Jinja over the fields, `choices`, `choice`, `label` and `number`,
    the place of `choice` among the `choices` shown, from 1."""
    choices: dict[str, str] | None = None
    """Other words for the task's labels, for this template alone."""
    requires: dict[str, list[str] | FieldCondition] = Field(default_factory=dict)
    """Applies only to records whose field has one of these values, or is as a condition says."""
    held_out: bool = False
    """Only validation rows are asked with it; `data.held_out_templates` sets this."""
    generation: bool = False
    """The answer is a text of its own, not a choice, although the task has choices."""
    order: Literal["shuffled", "either_way", "fixed"] = "shuffled"
    """How `choices` stand in the prompt, by hash of the record: in any order; forward or backward, for a scale; or as
    the task lists them."""
    answer: str | None = None
    """The answer alone, without the phrasing, where it is no choice: what evaluation compares with. Jinja as in
    `outputs`. None: evaluation has the output only."""
    answer_type: Literal["number", "phrase", "set", "text", "code"] = "text"
    """How `answer` is compared: number, the last one said, as a number; phrase, a few words, letter by letter; set,
    names between commas, in any order; text, by n-grams; code, a program."""

    @field_validator("name")
    @classmethod
    def _snake_case(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("a template name is snake_case")
        return name

    def applies(self, fields: dict[str, str]) -> bool:
        """Whether the template can be used for a record with these fields."""
        return all(
            wanted.holds(fields.get(name, "")) if isinstance(wanted, FieldCondition) else fields.get(name) in wanted
            for name, wanted in self.requires.items()
        )


class TaskSpec(BaseModel):
    """A task file as written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    category: str = Field(min_length=1, max_length=64)
    """Any name; KIT-19's are the paper's ten."""
    description: str
    source: str | Source
    """Id in catalog.yaml, or a source described in place."""
    splits: list[Literal["train", "validation", "test"]] = Field(min_length=1)
    """Splits of the source that may be trained on."""
    fields: list[str] = Field(min_length=1)
    """What a record holds."""
    optional: list[str] = Field(default_factory=list)
    """Fields that may be empty."""
    answer: str | None = None
    """Field with the label; none for a generation task."""
    choices: dict[str, str] | None = None
    """Label -> its word in prompts and answers, in the order they are listed."""
    meanings: dict[str, str] = Field(default_factory=dict)
    """Label -> what it says, in English, for the data card."""
    choice_fields: list[str] | None = None
    """Multiple choice: label "1" picks the first of these fields, and so on."""
    limits: dict[str, int] = Field(default_factory=dict)
    """Characters kept of a long field."""
    pair: list[str] | None = Field(None, min_length=2, max_length=2)
    """The two fields that are compared: they must not be one text."""
    draw_first: dict[str, list[str]] = Field(default_factory=dict)
    """Field -> values: records that have one of them in each are drawn before all others."""
    spoken: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Field with names between commas -> how a name is said in a sentence; templates have it as `<field>_said`."""
    templates: list[Template] = Field(min_length=1)
    metrics: list[Literal["accuracy", "macro_f1", "exact_match", "chrf"]] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        names = [t.name for t in self.templates]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"duplicate template names: {', '.join(twice)}")
        if (self.answer is None) != (self.choices is None and self.choice_fields is None):
            raise ValueError("`answer` needs `choices` or `choice_fields`, and they need `answer`")
        if self.choices is not None and self.choice_fields is not None:
            raise ValueError("`choices` and `choice_fields` exclude each other")
        named = [
            *self.optional,
            *self.limits,
            *self.spoken,
            *(self.pair or []),
            *self.draw_first,
            *(self.choice_fields or []),
            *([self.answer] if self.answer else []),
        ]
        for name in named:
            if name not in self.fields:
                raise ValueError(f"field {quote(name)} is not in `fields`{nearest(name, self.fields)}")
        for name in self.meanings:
            if name not in (self.choices or {}):
                raise ValueError(f"meanings: {quote(name)} is no label{nearest(name, self.choices or {})}")
        for template in self.templates:
            self._check(template)
        return self

    def _check(self, template: Template) -> None:
        where = f"template {quote(template.name)}"
        held = set(self.fields) | {f"{name}_said" for name in self.spoken}
        asked = held | ({"choices"} if self.answer else set())
        if self.answer and not template.generation:
            asked.discard(self.answer)
        answered = held | ({"choices", "choice", "label", "number"} if self.answer else set())
        parts = [(template.instruction, asked, "instruction"), (template.input, asked, "input")]
        parts += [(o, answered, "outputs") for o in template.outputs]
        parts += [(template.answer, answered, "answer")] if template.answer is not None else []
        for text, known, part in parts:
            for name in sorted(templates.undeclared(text) - known):
                raise ValueError(
                    f"{where}: {part} uses {quote(name)}, which is not one of {', '.join(sorted(known))}"
                    f"{nearest(name, known)}"
                )
        for name in template.requires:
            if name not in self.fields:
                raise ValueError(f"{where}: requires names field {quote(name)}{nearest(name, self.fields)}")
        if template.choices is not None and list(template.choices) != list(self.choices or {}):
            raise ValueError(f"{where}: its choices must name the task's labels, in the task's order")
        if template.answer is not None and self.answer and not template.generation:
            raise ValueError(f"{where}: `answer` is for free answers (generation: true); a choice is its own")


class Task(BaseModel):
    """A task with its name and its source resolved."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    spec: TaskSpec
    source_id: str
    source: Source

    @cached_property
    def labels(self) -> list[str]:
        """Label values in the order of the choices; empty for a generation task."""
        if self.spec.choices is not None:
            return list(self.spec.choices)
        return [str(i + 1) for i in range(len(self.spec.choice_fields or []))]

    def drawn_first(self, fields: Mapping[str, str]) -> bool:
        """Whether a record is of those that are drawn before others."""
        return all(fields[name] in values for name, values in self.spec.draw_first.items())

    def is_free(self, template: Template) -> bool:
        """Whether a template asks for a text of its own, not for one of the choices."""
        return self.spec.answer is None or template.generation

    @cached_property
    def asked_fields(self) -> list[str]:
        """Fields that some template's prompt shows, in the order of `fields`."""
        shown = {
            name
            for template in self.spec.templates
            for text in (template.instruction, template.input)
            for name in templates.undeclared(text)
        }
        if "choices" in shown:
            shown |= set(self.spec.choice_fields or ())
        return [name for name in self.spec.fields if name in shown]

    def choice_words(self, template: Template, fields: dict[str, str]) -> list[str]:
        """The word or text of each label, in the order of `labels`, for a record under a template."""
        if self.spec.choice_fields is not None:
            return [fields[name] for name in self.spec.choice_fields]
        return list((template.choices or self.spec.choices or {}).values())


def load_task(path: Path) -> Task:
    """Reads one task file.

    Raises:
        TaskError: it is not YAML, has wrong keys or values, or a template names an unknown field.
    """
    tree = strict_yaml.parse(path.read_bytes(), str(path), TaskError)
    spec = validate(TaskSpec, tree, str(path), TaskError)
    if isinstance(spec.source, Source):
        return Task(name=path.stem, spec=spec, source_id=path.stem, source=spec.source)
    catalog = load_catalog()
    if spec.source not in catalog:
        raise TaskError(f"{path}: source {quote(spec.source)} is not in catalog.yaml{nearest(spec.source, catalog)}")
    return Task(name=path.stem, spec=spec, source_id=spec.source, source=catalog[spec.source])


def withhold(tasks: Mapping[str, Task], names: Mapping[str, Sequence[str]]) -> dict[str, Task]:
    """The tasks with these templates, by task, kept from the training rows.

    Raises:
        TaskError: there is no such task or template, or a task keeps none for training.
    """
    out = dict(tasks)
    for name, withheld in names.items():
        if name not in tasks:
            raise TaskError(f"data.held_out_templates: {quote(name)} is no task of this build{nearest(name, tasks)}")
        task = tasks[name]
        known = [template.name for template in task.spec.templates]
        for wrong in (template for template in withheld if template not in known):
            near = nearest(wrong, known)
            raise TaskError(
                f"data.held_out_templates: {name} has no template {quote(wrong)}{near}; it has {', '.join(known)}"
            )
        if set(known) <= set(withheld):
            raise TaskError(f"data.held_out_templates: {name} keeps no template for its training rows")
        templates_ = [t.model_copy(update={"held_out": t.name in withheld}) for t in task.spec.templates]
        out[name] = task.model_copy(update={"spec": task.spec.model_copy(update={"templates": templates_})})
    return out


def load_tasks(names: Iterable[str] | None = None, extra_dir: str | None = None) -> dict[str, Task]:
    """Every task, or those named, sorted by name.

    Raises:
        TaskError: a file is wrong, two files share a name, or a name is unknown.
    """
    files: dict[str, Path] = {}
    folders = [DEFINITIONS] + ([Path(extra_dir)] if extra_dir else [])
    for folder in folders:
        if not folder.is_dir():
            raise TaskError(f"data.tasks_dir: {folder} is not a folder")
        for path in sorted(folder.glob("*.yaml")):
            if path.stem in files:
                raise TaskError(f"task {quote(path.stem)} has two files: {files[path.stem]} and {path}")
            files[path.stem] = path
    wanted = sorted(files) if names is None else sorted(set(names))
    for name in wanted:
        if name not in files:
            raise TaskError(
                f"data.tasks: {quote(name)} is no task{nearest(name, files)}; known: {', '.join(sorted(files))}"
            )
    return {name: load_task(files[name]) for name in wanted}
