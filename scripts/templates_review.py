"""Writes docs/reference/templates.md: one rendered example of each template, from the embedded samples.

    python scripts/templates_review.py > docs/reference/templates.md

A test compares the file with what this prints, so it never tells of templates that are no more.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from kit19_ray.data.inspect.describe_task import sample_example, sample_records
from kit19_ray.tasks.task import Template, load_tasks

HEAD = """\
---
search:
  exclude: true
---

# One example of each template

Made by `python scripts/templates_review.py > docs/reference/templates.md` from the embedded samples, which are ours;
a test holds this file to the task files. *closed*: the prompt lists the choices; *open*: it does not. Below an answer
chosen from several labels stand the answers of the other labels, as the evaluation scores them. Some samples contain
insults, because hate-speech detection is one of the tasks.
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
    lines = [f"[명령어] {example['instruction']}"]
    if example["input"]:
        lines.append(f"[입력] {example['input']}")
    lines.append(f"[응답] {example['output']}")
    others = [c for i, c in enumerate(example["candidates"]) if i != example["label"]]
    lines += [f"[다른 응답] {other}" for other in others]
    # Tildes, because some answers hold code between backquotes.
    return f"\n### {number}. {template.name} ({template.kind})\n\n~~~text\n" + "\n".join(lines) + "\n~~~\n"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.writelines(review())
