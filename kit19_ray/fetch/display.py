"""What people see: tables that are never cut, and progress, as bars at a terminal and as lines elsewhere."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

_LINE_SECONDS = 30.0  # between lines on one file where there is no terminal
_WIDE = 10_000  # columns; more than any table has


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> str:
    """A table as text, as wide as it must be.

    Args:
        right: columns of numbers.
    """
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    for row in rows:
        made.add_row(*map(Text, row))
    console = Console(width=_WIDE, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


@contextmanager
def counting(console: Console, text: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar of `total` steps; the function yielded is called after each, by any thread."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)


class Downloads:
    """A context with a bar for all bytes and one for each file under way; the bars go when it ends."""

    def __init__(self, console: Console, total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bars = Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._all = self._bars.add_task("all", total=total or None)

    def __enter__(self) -> Downloads:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def line(self, text: str) -> None:
        """A line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def file(self, name: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """One file's bar; the function yielded is told its bytes so far."""
        task = self._bars.add_task(name, total=total)
        before, told = 0, time.monotonic()

        def progress(size: int) -> None:
            nonlocal before, told
            self._bars.update(task, completed=size)
            self._bars.advance(self._all, size - before)
            before = size
            if self._bars.disable and time.monotonic() - told > _LINE_SECONDS:
                told = time.monotonic()
                self.line(f"{name}: {size / 1e6:,.1f} of {total / 1e6:,.1f} MB" if total else f"{name}: {size:,} bytes")

        try:
            yield progress
        finally:
            self._bars.remove_task(task)
