"""What a command tells its user: messages and progress on stderr; the output, tables and records on stdout.

The only module that makes a rich `Console`, and the only one that writes to stdout: `reserve_stdout` keeps it free of
what Ray, its workers and other libraries print.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from kit19_ray.redaction import redacted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_PIPE_WIDTH = 1000  # columns where nobody reads: nothing is cut
_WIDE = 10_000  # more columns than any table has
_LINE_SECONDS = 30.0  # between lines of progress where there is no terminal

_output: TextIO | None = None  # the real standard output, once it is reserved


def accept_any_stream() -> None:
    """A terminal of ASCII or CP949 shows escapes for what it lacks, a closed stream swallows all: no fault of ours."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def reserve_stdout() -> None:
    """From here on only this module writes to standard output: what others print there goes to stderr.

    Of this process (`print`, Ray's copies of its workers' lines) and of those it starts (file descriptor 1).
    """
    global _output
    if _output is not None:
        return
    sys.stdout.flush()
    try:
        kept = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    except OSError:  # not files, as under a test's capture
        return
    os.set_inheritable(kept, False)
    _output = os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors="backslashreplace", buffering=1)
    sys.stdout = sys.stderr


def output() -> TextIO:
    """Standard output, for what a verb documents."""
    return _output or sys.stdout


def write(text: str, end: str = "\n") -> None:
    """What a verb was asked for, on stdout."""
    print(text, end=end, file=output(), flush=True)


def say(text: str) -> None:
    """One message on stderr, without the secrets of its URLs."""
    print(redacted(text), file=sys.stderr, flush=True)


def stdout() -> Console:
    """For styled text on stdout: taken literally, never wrapped, and never cut where no terminal reads."""
    width = None if output().isatty() else _PIPE_WIDTH
    return _console(file=output(), soft_wrap=True, highlight=False, markup=False, width=width)


def stderr(least_width: int = 0) -> Console:
    """For styled text and bars on stderr.

    Args:
        least_width: columns to take even of a narrower terminal, so that the cells of a table stay whole.
    """
    made = _console(stderr=True, highlight=False, markup=False)
    made.width = max(made.width, least_width)
    return made


def _console(**options: Any) -> Console:
    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            raise  # called while the error is handled; rich's own ends the program with code 1

    return Ours(**options)


def write_json(found: Any) -> None:
    """Prints what a machine reads to stdout."""
    write(json.dumps(found, ensure_ascii=False, indent=1))


def show(found: Any, as_json: bool, printed: Callable[[Any], None]) -> None:
    """What was found, on stdout: as JSON, or as `printed` does it for a reader."""
    if as_json:
        write_json(found)
    else:
        printed(found)


def table(found: Sequence[Mapping[str, object]], as_json: bool = False, right: Sequence[str] = ()) -> None:
    """Prints rows with the same keys to stdout, as a table or as JSON.

    Args:
        right: columns of numbers.
    """
    if as_json:
        write_json(found)
        return
    rows = [["" if value is None else str(value) for value in row.values()] for row in found]
    write(table_text(list(found[0]) if found else [], rows, right))


def table_text(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> str:
    """A table as text, as wide as it must be: a narrow terminal wraps its lines, the cells stay whole.

    Args:
        right: columns of numbers.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        made.add_row(*map(Text, row))
    console = Console(width=_WIDE, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def record(found: Mapping[str, object], as_json: bool) -> None:
    """Prints one thing to stdout, a line a key or as JSON."""
    if as_json:
        write_json(found)
        return
    for key, value in found.items():
        write(f"{key:<10} {value}")


def pairs(found: list[tuple[str, str]]) -> None:
    """Names and values on stderr, one below the other."""
    width = max((len(name) for name, _ in found), default=0)
    for name, value in found:
        say(f"{name:<{width}}  {value}")


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[..., None]]:
    """Counts to `total`: a bar on a terminal, a line now and then elsewhere.

    The block is given a function to call, from any thread, with how many more are done (1 when not given).
    """
    if sys.stderr.isatty():
        with bars(eta=True) as bar:
            task = bar.add_task(label, total=total)
            yield lambda count=1: bar.advance(task, count)
        return
    done, told = 0, time.monotonic()

    def advance(count: int = 1) -> None:
        nonlocal done, told
        done += count
        if done < total and time.monotonic() - told >= _LINE_SECONDS:
            told = time.monotonic()
            say(f"{label}: {done:,} of {total:,}")

    yield advance


def bars(*columns: Any, eta: bool = False, transient: bool = True) -> Progress:
    """Bars on stderr, for a `with`; nothing is drawn where there is no terminal.

    Args:
        columns: rich's columns between the bar and the time; a count when there are none.
        eta: show the time that is left, instead of the time taken.
        transient: the bars go when the block ends.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = stderr()
    timing = TimeRemainingColumn() if eta else TimeElapsedColumn()
    shown = (TextColumn("{task.description}", markup=False), BarColumn(), *(columns or (MofNCompleteColumn(),)), timing)
    return Progress(*shown, console=console, transient=transient, disable=not console.is_terminal)
