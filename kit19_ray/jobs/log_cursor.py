"""The log of a job, read through connections that break. Pure."""

from __future__ import annotations

import re

_URI = re.compile(r"(?:file:///|s3://)[^\n]+")  # a root may hold spaces
_TRAINS = re.compile(r"(?:file:///|s3://)[^\n]+/train-[0-9a-f]+")


class LogCursor:
    """Joins streams that each begin at the log's first character: every character comes out once, in order."""

    def __init__(self) -> None:
        self.seen = self._at = 0

    def restart(self) -> None:
        """The next text is the log's beginning."""
        self._at = 0

    def feed(self, text: str) -> str:
        """What of `text` is new."""
        new = text[max(0, self.seen - self._at) :]
        self._at += len(text)
        self.seen = max(self.seen, self._at)
        return new


class Lines:
    """What is worth knowing in a log.

    Attributes:
        uri: the last output prefix, on a line of its own.
        trains: the prefix being trained into.
        no_package: the cluster's Python has no kit19-ray.
    """

    def __init__(self) -> None:
        self._rest = ""
        self.uri: str | None = None
        self.trains: str | None = None
        self.no_package = False

    def feed(self, text: str) -> None:
        """The next piece of the log."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if _URI.fullmatch(line.strip()):
                self.uri = line.strip()
            elif found := _TRAINS.fullmatch(line.partition("-> ")[2].rstrip()):
                self.trains = found[0]
            elif "No module named kit19_ray" in line:
                self.no_package = True
