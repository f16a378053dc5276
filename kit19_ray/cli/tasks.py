"""`kit19 tasks`: the tasks, and all of one."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kit19_ray.cli.options import AsJson, ConfigOption, Overrides, app, load
from kit19_ray.errors import UserError
from kit19_ray.utils.console import show


class _ListByDefault(TyperGroup):
    """`kit19 tasks` is `kit19 tasks list`, with or without options and overrides."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help"):
            overridden = bool(args) and ("=" in args[0] or args[0].startswith("-"))
            args = ["list", *args] if overridden or not args else args
        return super().parse_args(ctx, args)


tasks = typer.Typer(
    cls=_ListByDefault,
    help="The tasks: `kit19 tasks` lists them, `kit19 tasks show NAME` tells all of one.",
    rich_markup_mode=None,
)
app.add_typer(tasks, name="tasks")


@tasks.command("list")
def list_(config: ConfigOption = None, overrides: Overrides = None, json: AsJson = False) -> None:
    """List the tasks with category, licence, templates and quota."""
    from kit19_ray.data.inspect import list_tasks

    show(list_tasks.rows(load(config, overrides, needs_root=False)), json, list_tasks.show)


@tasks.command("show")
def show_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task.")],
    config: ConfigOption = None,
    overrides: Overrides = None,
    json: AsJson = False,
) -> None:
    """Show all of one task: its source and files, fields, choices, and each template with an example."""
    if "=" in name:
        raise UserError("kit19 tasks show NAME: the name of a task is missing; `kit19 tasks` lists them")
    from kit19_ray.data.inspect import describe_task

    show(describe_task.describe(load(config, overrides, needs_root=False), name), json, describe_task.show)
