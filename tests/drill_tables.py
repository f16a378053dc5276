"""The tables of docs/explanation/drills.md: the tests that are drills write them, each its section's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COLUMNS = ["| drill | what is done | outcome | seconds |", "| --- | --- | --- | ---: |"]


class DrillTable:
    """The outcomes of this run's drills, for the table below one heading of the page."""

    def __init__(self, section: str) -> None:
        self._heading = f"## {section}"
        self._rows: dict[str, str] = {}

    def add(self, drill: str, done: str, outcome: str, seconds: float) -> None:
        """A drill's row: its name, what is done, how that ended and how long it took."""
        self._rows[f"| {drill}"] = f"| {drill} | {done} | {outcome} | {seconds:.0f} |"

    def write(self, page: Path) -> None:
        """Puts the rows into the section's table; a drill that is there already keeps its place."""
        lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else ["# Drills"]
        if self._heading not in lines:
            lines += ["", self._heading, "", *COLUMNS]
        rule = lines.index(COLUMNS[1], lines.index(self._heading)) + 1
        end = next((number for number in range(rule, len(lines)) if not lines[number].startswith("| ")), len(lines))
        rows = {line.split(" | ")[0]: line for line in lines[rule:end]} | self._rows
        page.write_text("\n".join([*lines[:rule], *rows.values(), *lines[end:]]) + "\n", encoding="utf-8")


@contextmanager
def drill_table(section: str) -> Iterator[DrillTable]:
    """A table for the block's drills, written at its end to the page that KIT19_DRILLS names."""
    table = DrillTable(section)
    yield table
    if page := os.environ.get("KIT19_DRILLS"):
        table.write(Path(page))
