"""The tables of docs/explanation/drills.md: the tests that are drills write them, each its section's."""

from __future__ import annotations

import os
from pathlib import Path

COLUMNS = ["| drill | what is done | outcome | seconds |", "| --- | --- | --- | ---: |"]


def record(section: str, drill: str, done: str, outcome: str, seconds: float) -> None:
    """Puts a drill's row into the table of its section of the page that KIT19_DRILLS names, if it names one.

    A drill that is there already keeps its place.
    """
    if not (name := os.environ.get("KIT19_DRILLS")):
        return
    page, heading = Path(name), f"## {section}"
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else ["# Drills"]
    if heading not in lines:
        lines += ["", heading, "", *COLUMNS]
    rule = lines.index(COLUMNS[1], lines.index(heading)) + 1
    end = next((number for number in range(rule, len(lines)) if not lines[number].startswith("| ")), len(lines))
    rows = {line.split(" | ")[0]: line for line in lines[rule:end]}
    rows[f"| {drill}"] = f"| {drill} | {done} | {outcome} | {seconds:.0f} |"
    page.write_text("\n".join([*lines[:rule], *rows.values(), *lines[end:]]) + "\n", encoding="utf-8")
