"""The report: shown, or written as a folder: report.md with its charts, report.html with them within, report.json."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kit19_ray.io import storage
from kit19_ray.report import charts, comparison, html, page
from kit19_ray.report.record import Comparison
from kit19_ray.report.runs import collect

REPORT, HTML, RECORD = "report.md", "report.html", "report.json"


def make(named: Sequence[str], root: str | None) -> Comparison:
    """The comparison, JSON-ready; see `runs.collect` for the names.

    Raises:
        StorageError: a run is not there or not finished.
    """
    return comparison.compare(collect(named, root))


def write(named: Sequence[str], root: str | None, out: str) -> tuple[str, Comparison]:
    """Writes the report folder and returns its URI and the comparison.

    Args:
        out: local path or URI of the folder.

    Raises:
        StorageError: a run is not there or not finished, or the folder cannot be written.
    """
    runs = collect(named, root)
    found = comparison.compare(runs)
    drawn = charts.draw(runs, found)
    for name, png in drawn.items():
        storage.write_bytes(storage.join(out, name), png)
    text = page.markdown(found, list(drawn))
    storage.write_text(storage.join(out, REPORT), text)
    storage.write_text(storage.join(out, HTML), html.render(text, drawn, "Runs compared"))
    storage.write_text(storage.join(out, RECORD), record(found) + "\n")
    return storage.normalise(out), found


def record(found: Comparison) -> str:
    """The comparison as JSON."""
    return json.dumps(found, ensure_ascii=False, indent=1)
