"""The command line: one verb a stage. The last line on stdout is the output's URI; all else goes to stderr.

Exit 0 done, 2 the user's mistake (one message), 1 ours (a traceback). Stages are imported when they run, so `--help`
loads neither Ray nor torch.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import typer

from kit19_ray.cli import stages  # isort: skip - importing them registers their verbs, in this order
from kit19_ray.cli import cluster, extras
from kit19_ray.cli.options import app
from kit19_ray.errors import EXIT_DONE, EXIT_INTERRUPTED, EXIT_OURS, EXIT_USER, UserError, clipped
from kit19_ray.utils import console

__all__ = ["app", "cluster", "main", "stages", "user_error"]

_EXIT_PIPE = 141  # what a shell says of a program that SIGPIPE ended: 128 + 13


def main() -> NoReturn:
    """Runs the command line and exits with its code."""
    console.accept_any_stream()
    try:
        code = app(standalone_mode=False)  # typer turns Ctrl-C into this code
        sys.stdout.flush()  # a full disk or a closed pipe is found here, not when the interpreter ends
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer's answer to it is code 1
            _explain(end.__context__)
        raise
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into messages and exit codes
        _explain(error)
    if code == EXIT_INTERRUPTED:
        console.say("\ninterrupted; the same command goes on where it stopped")
    sys.exit(code or EXIT_DONE)


def _explain(error: Exception) -> NoReturn:
    from typer.exceptions import TyperException

    if isinstance(error, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    if isinstance(error, TyperException):
        _end(error.format_message(), EXIT_USER)
    if isinstance(error, BrokenPipeError):
        _drop_output()  # the reader, such as `head`, has what it wanted
        sys.exit(_EXIT_PIPE)
    mine = user_error(error)
    if mine is not None:
        _end(str(mine), EXIT_USER)
    missing = extras.missing_module(error)
    if missing is not None:
        _end(str(missing), EXIT_USER)
    full = _of_errno(error, errno.ENOSPC, errno.EDQUOT)
    if full is not None:
        _drop_output()
        _end(
            f"{full.filename or 'the output'}: {os.strerror(full.errno or 0)}; free some space and run it again",
            EXIT_USER,
        )
    refused = _of_errno(error, errno.ENAMETOOLONG, errno.EROFS)
    if refused is not None:
        _end(f"{refused.filename or 'a path'}: {os.strerror(refused.errno or 0)}", EXIT_USER)
    import traceback

    try:
        console.say("".join(traceback.format_exception(error)))
    finally:
        _end("this is a fault of kit19-ray, not of yours; please report it with the lines above", EXIT_OURS)


def _end(message: str, code: int) -> NoReturn:
    """Says why and exits; the code is right even where nobody can be told."""
    try:
        console.say(f"error: {clipped(message)}")
    except OSError:
        _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """Both streams to nowhere, so that the interpreter's last flush finds no fault with them."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())


def _of_errno(error: BaseException, *numbers: int) -> OSError | None:
    """What the system refused with one of these numbers: a full disk, a name too long; None when there is none."""
    return next((e for e in causes(error) if isinstance(e, OSError) and e.errno in numbers), None)


def user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake behind an error, through what Ray wraps round an error of a worker."""
    for current in causes(error):
        wrapped = getattr(current, "cause", None)  # ray.exceptions.RayTaskError
        if isinstance(current, UserError) and not isinstance(wrapped, UserError):
            return current
    return None


def causes(error: BaseException | None) -> list[BaseException]:
    """The error and all behind it, nearest first."""
    found: list[BaseException] = []
    queue = [error]
    while queue:
        current = queue.pop(0)
        if current is None or any(current is known for known in found):
            continue
        found.append(current)
        wrapped = getattr(current, "cause", None)
        queue += [wrapped if isinstance(wrapped, BaseException) else None, current.__cause__, current.__context__]
        queue += list(getattr(current, "worker_failures", {}).values())  # ray.train.WorkerGroupError
    return found
