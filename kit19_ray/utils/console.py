"""What a command tells its user: messages on stderr, since stdout keeps to the output; tables and records on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

_PIPE_WIDTH = 1000  # columns where nobody reads: nothing is cut


def say(text: str) -> None:
    """One message on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(found: list[dict[str, Any]], as_json: bool) -> None:
    """Prints rows with the same keys to stdout, as a table or as JSON."""
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for column in found[0] if found else ():
        shown.add_column(column, no_wrap=True)
    for row in found:
        shown.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(shown)


def record(found: dict[str, Any], as_json: bool) -> None:
    """Prints one thing to stdout, a line a key or as JSON."""
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for key, value in found.items():
        print(f"{key:<10} {value}")
