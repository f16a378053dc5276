"""Writes docs/reference/cli.md: every verb with its usage, arguments and options, read off the command line itself.

    python scripts/cli_reference.py > docs/reference/cli.md

A test compares the file with what this prints. `typer ... utils docs` prints less: neither the defaults in a table nor
links to the config's keys, and all of these keys again below each verb.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from kit19_ray.cli.main import app

SECTIONS = ("data", "train", "evaluate", "serve")  # verbs with a section of the config
HEAD = """\
# The command line

Written by `python scripts/cli_reference.py > docs/reference/cli.md`. `python -m kit19_ray` is the same as `kit19`.
A stage's last line on stdout is its output's URI and all else goes to stderr. Exit code 0 is done, 2 the user's mistake
(one message), 1 a fault of kit19-ray, 130 interrupted.
"""


def page() -> str:
    """The whole page."""
    group: Any = get_command(app)
    context = group.make_context("kit19", [], resilient_parsing=True)
    parts = [HEAD]
    for name, command in _verbs(group, context):
        parts.append("\n".join(_verb(name, command, command.make_context(name, [], resilient_parsing=True))))
    return "\n".join(parts)


def _verbs(group: Any, context: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from _verbs(command, context, f"{name} ")
        else:
            yield f"{before}{name}", command


def _verb(name: str, command: Any, context: Any) -> Iterator[str]:
    usage = " ".join(["kit19", name, *command.collect_usage_pieces(context)])
    yield from (f"## kit19 {name}", "", inspect.cleandoc(command.help or ""), "", "```text", usage, "```", "")
    rows = [_row(param) for param in command.params]
    if rows:
        yield from ("| argument or option | default | meaning |", "|---|---|---|")
        yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
        yield ""
    if name in SECTIONS:
        yield from (f"Its keys: [{name}](config.md#{name}).", "")


def _row(param: Any) -> tuple[str, str, str]:
    option = param.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts)) if option else ""
    value = "" if not option or param.is_flag else f" {param.metavar or param.name.upper()}"
    default = "" if param.default in (None, False, ()) else f"`{param.default}`"
    shown = f"{names}{value}" if option else f"`{param.metavar or param.name.upper()}`"
    return shown, default, " ".join((param.help or "").split())


if __name__ == "__main__":
    print(page(), end="")
