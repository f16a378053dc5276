"""What a stage tells its user: lines on stderr, so that stdout keeps to the output URI."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """One message on stderr."""
    print(text, file=sys.stderr, flush=True)
