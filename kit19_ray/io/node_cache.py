"""This node's copies of what lies elsewhere: one download, whoever asks.

    <KIT19_CACHE>/copies/<key>/...     a folder or a file, named by what it must hold
    <KIT19_CACHE>/copies/<key>.lock    held by who downloads it, shared by who uses it
    <KIT19_CACHE>/checked/<key>        a local file's hash was compared: its name says which bytes, size and time

The lock is the kernel's, so it ends with the process: what a killed download left is swept by the next one, and what
nobody uses may go when the copies together are more than KIT19_CACHE_GB.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kit19_ray.errors import StorageError, quote
from kit19_ray.io import files, s3, s3_objects, storage
from kit19_ray.io.uris import shown, split
from kit19_ray.utils.hashing import sha256_stream

_GB = 10**9
# Locks of the copies this process uses, until it ends: a model's files may be opened long after it was loaded.
_used: dict[str, int] = {}
_threads = threading.Lock()
_RETRY_SECONDS = 0.1


def folder() -> Path:
    """KIT19_CACHE, or a folder of the user's cache; made where it is not there.

    Raises:
        StorageError: it cannot be written.
    """
    base = os.environ.get("KIT19_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kit19"
    )
    path = Path(base)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise StorageError(
            f"{path}: the cache folder cannot be written: {error.strerror}",
            hint="KIT19_CACHE names another folder, on a disk with room for a copy of the model",
        ) from None
    return path


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def _key_of(entry: Path) -> str:
    return entry.name.lstrip(".").partition(".")[0]


def _last_used(entry: Path) -> float:
    lock = entry.with_name(f"{_key_of(entry)}.lock")
    return lock.stat().st_mtime if lock.exists() else 0.0


def _limit() -> float | None:
    """Bytes that all copies may have together; None: no limit."""
    value = os.environ.get("KIT19_CACHE_GB")
    if not value:
        return None
    try:
        return float(value) * _GB
    except ValueError:
        raise StorageError(f"KIT19_CACHE_GB={quote(value)} is not a number of gigabytes") from None


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[int | None]:
    """The lock file's descriptor; None where it is held and is not waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield handle
    finally:
        if handle not in _used.values():
            os.close(handle)


def _copy(key: str, fetch: Callable[[Path], None]) -> Path:
    """The copy named `key`, fetched by one process of this node while the others wait."""
    target = folder() / "copies" / key
    name = target.with_name(f"{key}.lock")
    with _threads:
        if key in _used:
            if target.exists():
                os.utime(name)
                return target
            os.close(_used.pop(key))  # it was no good and was removed: our own lock must not keep us waiting
        # Who uses a copy holds its lock shared for as long as it lives, so nobody may wait here for it alone: a copy
        # that is there is shared at once, and the lock is tried for alone only to fetch what is not.
        while not (_shared(key, target, name) or _fetched(key, target, name, fetch)):
            time.sleep(_RETRY_SECONDS)
        return target


def _shared(key: str, target: Path, name: Path) -> bool:
    """Takes up a copy that is there; waits for who is fetching it."""
    name.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(handle, fcntl.LOCK_SH)
    if not target.exists():
        os.close(handle)
        return False
    os.utime(name)
    _used[key] = handle
    return True


def _fetched(key: str, target: Path, name: Path, fetch: Callable[[Path], None]) -> bool:
    """Fetches a copy; False where another process holds the lock, which has fetched it or does so now."""
    with _locked(name, wait=False) as lock:
        if lock is None:
            return False
        if not target.exists():
            for left in target.parent.glob(f".{key}.*.partial"):  # by a process that was killed: the lock is ours
                files.remove(left)
            _make_room(keep=key)
            try:
                with files.appearing(target) as partial:
                    fetch(partial)
            except OSError as error:
                raise StorageError(
                    f"{target}: {error.strerror or error}", hint="KIT19_CACHE names another folder for copies"
                ) from error
        os.utime(name)  # the least recently used go first
        fcntl.flock(lock, fcntl.LOCK_SH)
        _used[key] = lock
    return True


def _make_room(keep: str) -> None:
    """Sweeps what killed downloads left, and copies that nobody uses while all are more than the limit."""
    copies = folder() / "copies"
    limit = _limit()
    entries = sorted((p for p in copies.iterdir() if p.suffix != ".lock"), key=_last_used)
    total = sum(map(_size, entries)) if limit is not None else 0
    for entry in entries:
        key = _key_of(entry)
        dead = entry.name.endswith(".partial")
        if key == keep or key in _used or not (dead or (limit is not None and total > limit)):
            continue
        with _locked(copies / f"{key}.lock", wait=False) as lock:
            if lock is not None:
                total -= _size(entry) if limit is not None else 0
                files.remove(entry)


def local_dir(uri: str, sha256: Mapping[str, str] | None = None) -> Path:
    """The folder `uri` on this node: itself when local, else a copy kept by the listing's names, sizes and ETags.

    Args:
        sha256: of files below it, by path: each is compared, once on this node.

    Raises:
        StorageError: there is nothing below `uri`, or a file is not what it should be.
    """
    scheme, path = split(uri)
    if scheme == "file":
        if not Path(path).is_dir():
            raise StorageError(f"{shown(uri)} is not a folder")
        found = Path(path)
    else:
        with storage.translate_errors(uri):
            objects = s3_objects.below(path)
        if not objects:
            raise StorageError(f"{shown(uri)} is empty or does not exist")
        listed = repr((s3.endpoint(), [(o.key, o.size, o.etag, o.modified) for o in objects]))
        key = hashlib.sha256(listed.encode()).hexdigest()[:24]

        def fetch(partial: Path) -> None:
            partial.mkdir()
            storage.download_dir(uri, partial)

        found = _copy(key, fetch)
    for name, expected in (sha256 or {}).items():
        _check(found / name, expected, storage.join(uri, name))
    return found


def local_file(uri: str, sha256: str) -> Path:
    """The file `uri` on this node, with the bytes that `sha256` names: itself when local, else a copy.

    Raises:
        StorageError: it is not there, or has other bytes.
    """
    scheme, path = split(uri)
    found = Path(path) if scheme == "file" else _copy(sha256, lambda partial: storage.copy_out(uri, partial))
    try:
        _check(found, sha256, uri)
    except StorageError:
        if scheme != "file":
            files.remove(found)
        raise
    return found


def _check(path: Path, expected: str, uri: str) -> None:
    """Compares a file's hash, unless that was done on this node since it was last changed."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise StorageError(f"{shown(uri)} does not exist, though its manifest lists it") from None
    seen = repr((str(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, expected))
    mark = folder() / "checked" / hashlib.sha256(seen.encode()).hexdigest()[:32]
    if mark.exists():
        return
    with path.open("rb") as file:
        actual, size = sha256_stream(file)
    if actual != expected:
        raise StorageError(
            f"{shown(uri)}: {size:,} bytes with SHA-256 {actual}; its manifest says {expected}: the file was altered",
            hint="delete the prefix and build it again",
        )
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
