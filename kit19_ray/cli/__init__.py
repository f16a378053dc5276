"""The command line: one verb a stage. The last line on stdout is the output's URI; all else goes to stderr.

Exit 0 done, 2 the user's mistake (one message), 1 ours (a traceback). Stages are imported when they run, so `--help`
loads neither Ray nor torch.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from kit19_ray.cli import stages  # isort: skip - importing them registers their verbs, in this order
from kit19_ray.cli import cluster
from kit19_ray.cli.options import app
from kit19_ray.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_OURS, EXIT_USER, UserError

__all__ = ["app", "cluster", "main", "stages", "user_error"]


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    try:
        code = app(standalone_mode=False)  # typer turns Ctrl-C into this code
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into messages and exit codes
        _explain(error)
    if code == EXIT_INTERRUPTED:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
    sys.exit(code or EXIT_DONE)


def _explain(error: Exception) -> NoReturn:
    from typer.exceptions import TyperException

    if isinstance(error, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    if isinstance(error, TyperException):
        print(f"error: {error.format_message()}", file=sys.stderr)
        sys.exit(EXIT_USER)
    mine = user_error(error)
    if mine is not None:
        print(f"error: {mine}", file=sys.stderr)
        sys.exit(EXIT_USER)
    import traceback

    traceback.print_exception(error)
    print("error: this is a fault of kit19-ray, not of yours; please report it with the lines above", file=sys.stderr)
    sys.exit(EXIT_OURS)


def user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake behind an error, through what Ray wraps round an error of a worker."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        current = queue.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        wrapped = getattr(current, "cause", None)  # ray.exceptions.RayTaskError
        if isinstance(current, UserError) and not isinstance(wrapped, UserError):
            return current
        queue += [wrapped if isinstance(wrapped, BaseException) else None, current.__cause__, current.__context__]
        queue += list(getattr(current, "worker_failures", {}).values())  # ray.train.WorkerGroupError
    return None
