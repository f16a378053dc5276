"""What is at the targets already."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Literal

from kit19_ray.fetch.plan import Item
from kit19_ray.io import storage
from kit19_ray.sources.catalog import matches
from kit19_ray.utils.hashing import sha256_stream

State = Literal["absent", "whole", "unverified", "other"]
"""whole: the published file. other: another one. unverified: no size or hash is known to hold it against."""


def state(item: Item, size: int | None) -> State:
    """What is at one target, where a file of `size` bytes is, or none."""
    if size is None:
        return "absent"
    if item.bytes not in (None, size):
        return "other"
    if item.sha256 is None:
        return "unverified" if item.bytes is None else "whole"
    with closing(storage.open_input(item.target)) as file:
        return "whole" if sha256_stream(file)[0] == item.sha256 else "other"


def states(items: list[Item], done: Callable[[], None] = lambda: None) -> list[State]:
    """What is at each target; files are hashed several at once. A pattern is there when any file is that fits it.

    Args:
        done: called when an item's state is known.
    """
    with ThreadPoolExecutor(8) as pool:
        folders = dict.fromkeys(item.folder for item in items)
        listed = dict(zip(folders, pool.map(storage.list_files, folders), strict=True))

        def one(item: Item) -> State:
            sizes = [info.size for info in listed[item.folder] if matches(info.path, item.path)]
            found = state(item, sizes[0] if sizes else None)
            done()
            return found

        return list(pool.map(one, items))
