"""Writes docs/reference/templates.md: every template as written, with all its phrasings, and one rendered example.

    python scripts/templates_review.py > docs/reference/templates.md

A test compares the file with what this prints, so it never tells of templates that are no more.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from kit19_ray.data.inspect.describe_task import sample_example, sample_records
from kit19_ray.tasks.task import FieldCondition, Template, load_tasks

HEAD = """\
---
search:
  exclude: true
---

# The templates

Made by `python scripts/templates_review.py > docs/reference/templates.md`; a test holds this file to the task files.
*closed*: the prompt lists the choices; *open*: it does not. Of each template stand here what it is in the task file, in
Jinja, with every phrasing of its answer, and what it makes of one row of the embedded samples, which are ours and fit
it. Options stand in an order drawn by hash of the record, so those of one example are not those of the next. Below a
rendered answer chosen from several labels stand the answers of the other labels. Some samples contain insults, because
hate-speech detection is one of the tasks.
"""


def review() -> Iterator[str]:
    """The page, a piece for each heading and example."""
    yield HEAD
    tasks = load_tasks()
    kinds = Counter(t.kind for task in tasks.values() for t in task.spec.templates)
    yield f"\n{len(tasks)} tasks, {sum(kinds.values())} templates: {kinds['closed']} closed, {kinds['open']} open.\n"
    for task in tasks.values():
        yield f"\n## {task.name}\n\n{task.spec.description} {task.spec.category}, {task.source.licence.name}.\n"
        held = sample_records(task)
        for number, template in enumerate(task.spec.templates, 1):
            yield _section(number, template, sample_example(task, template, held, number))


def _section(number: int, template: Template, example: dict[str, Any] | None) -> str:
    assert example is not None, f"no sample fits {template.name}"  # a test of the samples holds this
    notes = [f"{name}: {_condition(wanted)}" for name, wanted in template.requires.items()]
    if template.choices:
        notes.append("labels: " + ", ".join(f"{label} = {word}" for label, word in template.choices.items()))
    written = [f"[명령어] {template.instruction}", *([f"[입력] {template.input}"] if template.input else [])]
    written += [f"[응답 {i}] {output}" for i, output in enumerate(template.outputs, 1)]
    if template.answer:
        written.append(f"[답만: {template.answer_type}] {template.answer}")
    rendered = [f"[명령어] {example['instruction']}", *([f"[입력] {example['input']}"] if example["input"] else [])]
    rendered.append(f"[응답] {example['output']}")
    rendered += [f"[다른 응답] {c}" for i, c in enumerate(example["candidates"]) if i != example["label"]]
    # Tildes, because some answers hold code between backquotes.
    blocks = [f"~~~{language}\n" + "\n".join(lines) + "\n~~~\n" for language, lines in
              (("jinja", written), ("text", rendered))]  # fmt: skip
    said = "".join(f"- {note}\n" for note in notes)
    return "\n".join([f"\n### {number}. {template.name} ({template.kind})\n", *([said] if said else []), *blocks])


def _condition(wanted: list[str] | FieldCondition) -> str:
    """When a template applies, in Markdown."""
    if isinstance(wanted, list):
        return "only " + " or ".join(f"`{value}`" for value in wanted)
    parts = {"only where it has": wanted.matches, "only where it lacks": wanted.lacks}
    return ", ".join(f"{what} `{pattern}`" for what, pattern in parts.items() if pattern)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.writelines(review())
