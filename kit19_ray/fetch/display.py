"""The progress of downloads, as bars at a terminal and as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kit19_ray.utils import console

_LINE_SECONDS = 30.0  # between lines on one file where there is no terminal


class Downloads:
    """A context with a bar for all bytes and one for each file under way; the bars go when it ends."""

    def __init__(self, total: int) -> None:
        from rich.progress import DownloadColumn, TransferSpeedColumn

        self._bars = console.bars(DownloadColumn(), TransferSpeedColumn(), eta=True)
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
