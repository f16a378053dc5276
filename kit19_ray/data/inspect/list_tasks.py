"""`kit19 tasks` and `kit19 status`: what can be built, what is running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from kit19_ray.config.schema import Config
from kit19_ray.data import mixture
from kit19_ray.tasks.task import Task, load_tasks
from kit19_ray.utils import console


class TaskRow(TypedDict):
    """A task as `kit19 tasks` lists it; `closed` of its templates list the choices."""

    task: str
    category: str
    source: str
    licence: str
    commercial: bool
    templates: int
    closed: int
    quota: int
    metrics: list[str]


def rows(config: Config) -> list[TaskRow]:
    """One row a task: name, category, source, licence, templates, quota, metrics."""
    tasks = load_tasks(config.data.tasks, config.data.tasks_dir)
    quotas = mixture.quotas(config.data, {name: task.spec.category for name, task in tasks.items()})
    return [_row(task, quotas[name]) for name, task in tasks.items()]


def _row(task: Task, quota: int) -> TaskRow:
    closed = sum(t.kind == "closed" for t in task.spec.templates)
    return {
        "task": task.name,
        "category": task.spec.category,
        "source": task.source_id,
        "licence": task.source.licence.name,
        "commercial": task.source.licence.commercial,
        "templates": len(task.spec.templates),
        "closed": closed,
        "quota": quota,
        "metrics": list(task.spec.metrics),
    }


def show(found: Sequence[TaskRow]) -> None:
    """Prints the rows to stdout, as a table."""
    columns = ("task", "category", "licence", "templates", "quota")
    rows = [
        (
            row["task"],
            row["category"],
            row["licence"],
            f"{row['templates']} ({row['closed']} closed)",
            f"{row['quota']:,}",
        )
        for row in found
    ]
    console.write(console.table_text(columns, rows, right=("templates", "quota")))
