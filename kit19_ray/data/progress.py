"""How far the stream of a build is: rows in, kept and dropped by reason, rows a second, time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from kit19_ray.utils.console import say

_EVERY = 10.0  # seconds between lines
_REASONS = 3  # named in a line, the most frequent first
_TELLING = 0.05  # share of the bytes before which the time left would be a guess: the first rows wait for the workers


class StreamProgress:
    """Says every few seconds what the stream has done; a build that takes less says it once, at the end.

    Args:
        total: bytes of the files.
        clock: seconds.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._start = self._said = clock()
        self._rows = self._bytes = 0
        self._dropped: Counter[str] = Counter()

    def add(self, rows: int, read: int, dropped: Mapping[str, int]) -> None:
        """Counts what came out of the stream.

        Args:
            rows: that went in.
            read: bytes of the files they stand for.
            dropped: of the rows, by reason.
        """
        self._rows += rows
        self._bytes += read
        self._dropped.update(dropped)
        if self._clock() - self._said >= _EVERY:
            self._said = self._clock()
            say(self.line())

    def end(self) -> None:
        """The last line."""
        self._bytes = self._total
        say(self.line())

    def line(self) -> str:
        """The state in one line."""
        seconds = max(self._clock() - self._start, 1e-3)
        dropped = self._dropped.total()
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in self._dropped.most_common(_REASONS))
        share = self._bytes / self._total if self._total else 1.0
        left = seconds / share - seconds if share else 0.0
        text = f"data: {self._rows:,} rows read, {self._rows - dropped:,} kept, {dropped:,} dropped"
        text += f" ({reasons})" if reasons else ""
        text += f"; {self._rows / seconds:,.0f} rows/s"
        if share >= 1:
            return text
        return f"{text}, {share:.0%}" + (f", about {left:,.0f} s left" if share >= _TELLING else "")
