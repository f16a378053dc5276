"""The licences of what is about to be fetched, and the user's word that they are accepted."""

from __future__ import annotations

import sys

from kit19_ray.errors import FetchError
from kit19_ray.fetch.plan import Item
from kit19_ray.sources.catalog import Licence
from kit19_ray.utils.console import say, table_text


def size(items: list[Item]) -> str:
    """The download's size for people; "?" stands for files whose size is not known."""
    known = [i.origin.bytes for i in items if i.origin is not None and i.origin.bytes is not None]
    parts = [f"{sum(known) / 1e6:,.1f} MB"] if known else []
    return " + ".join(parts if len(known) == len(items) else [*parts, "?"])


def _forbidden(licence: Licence) -> str:
    parts = [("commercial use", licence.commercial), ("derivatives", licence.derivatives)]
    return ", ".join(word for word, allowed in parts if not allowed)


def licences(items: list[Item]) -> str:
    """A table with a row for each source: licence, what it forbids, files, size."""
    rows = []
    for name in dict.fromkeys(item.source_id for item in items):
        mine = [item for item in items if item.source_id == name]
        licence = mine[0].source.licence
        text = licence.name + (f" <{licence.url}>" if licence.url else "")
        rows.append((name, str(len(mine)), size(mine), _forbidden(licence), text))
    return table_text(("source", "files", "size", "forbids", "licence"), rows, right=("files", "size"))


def ask(items: list[Item], accepted: bool) -> None:
    """Shows the licences and asks, unless they are accepted.

    Raises:
        FetchError: the user declines, or there is no terminal to ask at.
    """
    say(licences(items))
    if accepted:
        return
    if not sys.stdin.isatty():
        raise FetchError(
            "the licences above were not accepted, and there is no terminal to ask at",
            hint="read them and add --accept-licences",
        )
    say(f"Fetch {len(items)} files ({size(items)}) under these licences? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise FetchError("the licences were not accepted; nothing was fetched")
