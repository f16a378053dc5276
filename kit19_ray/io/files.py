"""Files of this machine that appear whole or not at all, and are on the disk when their name is."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LONGEST_NAME = 255  # bytes, of every file system in use


def partial_name(target: Path) -> Path:
    """A new name beside `target` for what is not finished; it begins with a dot and ends in `.partial`."""
    end = f".{uuid.uuid4().hex[:8]}.partial"
    stem = target.name.encode()[: _LONGEST_NAME - 1 - len(end)].decode("utf-8", "ignore")
    return target.with_name(f".{stem}{end}")


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` outlive a power cut; not every network file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Brings a file's bytes to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sweep(folder: Path, older_than: float | None = None) -> None:
    """Removes what writers who were killed left unfinished below `folder`.

    Args:
        older_than: seconds; what is newer stays, as it may be somebody's at work. None: nobody may be writing there.
    """
    for left in list(folder.rglob(".*.partial")):
        with suppress(FileNotFoundError):  # it was finished meanwhile
            if older_than is None or time.time() - left.stat().st_mtime > older_than:
                remove(left)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A path to write a file or a folder at, which gets the name `target` when the block ends without an error.

    A folder that is there already stays: who makes the same one twice makes it equal.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(target)
    try:
        yield partial
        if partial.is_dir():
            for file in partial.rglob("*"):
                if file.is_file():
                    sync(file)
            if not target.is_dir():
                partial.rename(target)
        else:
            sync(partial)
            os.replace(partial, target)
        sync_folder(target.parent)
    finally:
        remove(partial)


def remove(path: Path) -> None:
    """Removes a file, or a folder with all in it; nothing happens when there is none."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
