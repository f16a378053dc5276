"""`kit19 tasks` and `kit19 status`: what can be built, what is running."""

from __future__ import annotations

from typing import Any

from kit19_ray.config.schema import Config
from kit19_ray.data import mixture
from kit19_ray.tasks.task import Task, load_tasks

_WIDTH = 132  # columns of the table with the longest licence's name


def rows(config: Config) -> list[dict[str, Any]]:
    """One row a task: name, category, source, licence, templates, quota, metrics."""
    tasks = load_tasks(config.data.tasks, config.data.tasks_dir)
    quotas = mixture.quotas(config.data, {name: task.spec.category for name, task in tasks.items()})
    return [_row(task, quotas[name]) for name, task in tasks.items()]


def _row(task: Task, quota: int) -> dict[str, Any]:
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


def show(found: list[dict[str, Any]]) -> None:
    """Prints the rows to stdout, as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column, justify in (
        ("task", "left"),
        ("category", "left"),
        ("licence", "left"),
        ("templates", "right"),
        ("quota", "right"),
    ):
        table.add_column(column, justify="right" if justify == "right" else "left", no_wrap=True)
    for row in found:
        templates = f"{row['templates']} ({row['closed']} closed)"
        table.add_row(row["task"], row["category"], row["licence"], templates, f"{row['quota']:,}")
    console = Console(soft_wrap=True)
    console.width = max(console.width, _WIDTH)  # a narrow terminal wraps lines; cells stay whole
    console.print(table)
