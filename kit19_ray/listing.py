"""`kit19 tasks` and `kit19 status`: what can be built, what is running."""

from __future__ import annotations

import json
import sys
from typing import Any

from kit19_ray.config import Config
from kit19_ray.tasks import Task, load_tasks

_PIPE_WIDTH = 1000  # columns where nobody reads: nothing is cut


def rows(config: Config) -> list[dict[str, Any]]:
    """One row a task: name, category, source, licence, templates, quota, metrics."""
    return [_row(config, task) for task in load_tasks(config.data.tasks, config.data.tasks_dir).values()]


def _row(config: Config, task: Task) -> dict[str, Any]:
    closed = sum(t.kind == "closed" for t in task.spec.templates)
    return {
        "task": task.name,
        "category": task.spec.category,
        "source": task.source_id,
        "licence": task.source.licence.name,
        "commercial": task.source.licence.commercial,
        "templates": len(task.spec.templates),
        "closed": closed,
        "quota": config.data.quotas.get(task.name, config.data.quota),
        "metrics": list(task.spec.metrics),
    }


def show(config: Config, as_json: bool) -> None:
    """Prints the rows to stdout, as a table or as JSON."""
    found = rows(config)
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
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
    Console(soft_wrap=True).print(table)


def table(found: list[dict[str, Any]], as_json: bool) -> None:
    """Prints rows with the same keys to stdout, as a table or as JSON."""
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for column in found[0] if found else ():
        shown.add_column(column, no_wrap=True)
    for row in found:
        shown.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(shown)


def record(found: dict[str, Any], as_json: bool) -> None:
    """Prints one thing to stdout, a line a key or as JSON."""
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for key, value in found.items():
        print(f"{key:<10} {value}")
