"""A prefix has one writer: a small object beside it says who, and that it is alive.

The holder changes the object every few seconds. Who wants it too watches: a lease that does not change for a while is
nobody's, and neither is one of a process of this machine that is gone. Times are the watcher's own, so clocks that
differ do no harm. On S3 the object is made with `If-None-Match` and taken with `If-Match`, locally by a link that must
not exist; a store that knows neither leaves a gap of one round trip.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypedDict

from kit19_ray.errors import StorageError
from kit19_ray.io import files, s3_calls, s3_objects, storage
from kit19_ray.io.uris import shown, split
from kit19_ray.utils.console import say

BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0  # of a holder on another machine, after which its lease is taken
_FOLDER = "leases"
_LEFT_SECONDS = 3600.0  # a lease is written in milliseconds: what is unfinished for so long was left by a kill


class Lease:
    """What a holder knows of its lease."""

    def __init__(self, uri: str, token: str) -> None:
        self.uri, self.token = uri, token
        self.lost = threading.Event()

    def require(self) -> None:
        """Raises StorageError when another run has taken it: this process was silent for too long."""
        if self.lost.is_set():
            raise StorageError(
                f"{shown(self.uri)}: another run took this one for dead and writes there now",
                hint="start it again: it goes on, or finds it finished",
            )


def _where(uri: str) -> str:
    parent, _, name = uri.rpartition("/")
    return storage.join(parent, _FOLDER, f"{name}.json")


def _started(pid: int) -> str | None:
    """When the process began, in ticks since the machine did; None: there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


class Holder(TypedDict, total=False):
    """The lease's file: the process that writes the prefix, and its sign of life."""

    machine: list[str]
    """Host name, boot id and process namespace: who has the same can see the process."""
    host: str
    pid: int
    started: str | None
    token: str
    what: str
    beat: int


def _me() -> Holder:
    # A host name alone is not enough: containers share one across boots, and a process number means nothing in another
    # namespace. Whoever has all three equal sees the very same process table.
    machine = [socket.gethostname()]
    with suppress(OSError):
        machine.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        machine.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return {"machine": machine, "host": machine[0], "pid": os.getpid(), "started": _started(os.getpid())}


def _holder(what: str) -> Holder:
    return {**_me(), "token": uuid.uuid4().hex, "what": what}


def _dead(holder: Holder) -> bool:
    """Whether the holder is known to be gone: a process of this machine whose number is free or another's."""
    me = _me()
    if holder.get("machine") != me["machine"] or not isinstance(holder.get("pid"), int):
        return False
    # Numbers are given out again: with another start time it is another process.
    return holder.get("started") is not None and _started(holder["pid"]) != holder["started"]


def _read(where: str) -> tuple[Holder, str] | None:
    """The holder and the version of the object; None when there is none."""
    scheme, path = split(where)
    try:
        with storage.translate_errors(where):
            if scheme == "file":
                text, version = Path(path).read_bytes(), ""
            else:
                found = s3_objects.head(path)
                if found is None:
                    return None
                text, version = s3_objects.read(path), found.etag
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError) or "does not exist" in error.message:
            return None
        raise
    try:
        found_there: Any = json.loads(text)
    except ValueError:
        found_there = {}
    if not isinstance(found_there, dict):
        return {}, version
    holder: Any = found_there
    return holder, version


def _make(where: str, data: bytes) -> bool:
    """Writes the lease where there is none; whether it is ours."""
    scheme, path = split(where)
    with storage.translate_errors(where):
        if scheme == "s3":
            try:
                s3_objects.put(path, data, only_if="")
            except s3_calls.Replaced:
                return False
            return True
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = files.partial_name(target)
        whole.write_bytes(data)
        try:
            os.link(whole, target)
        except FileExistsError:
            return False
        finally:
            whole.unlink()
        return True


def _take(where: str, data: bytes, version: str) -> bool:
    """Writes the lease over a silent one; whether nobody was faster."""
    scheme, path = split(where)
    if scheme == "s3":
        try:
            with storage.translate_errors(where):
                s3_objects.put(path, data, only_if=version)
        except StorageError as error:
            if isinstance(error.__cause__, s3_calls.Replaced):
                return False
            raise
        return True
    storage.write_bytes(where, data)
    time.sleep(0.2)  # of two who renamed at the same moment the later one has it
    found = _read(where)
    return found is not None and found[0].get("token") == json.loads(data)["token"]


@contextmanager
def held(uri: str, what: str) -> Iterator[Lease]:
    """The sole right to write the prefix `uri`, for the block; waits for another run that has it.

    Args:
        what: the verb, for messages.

    Raises:
        StorageError: the storage cannot be written.
    """
    where, me = _where(uri), _holder(what)
    _acquire(where, me, uri, what)
    scheme, path = split(where)
    if scheme == "file":
        files.sweep(Path(path).parent, _LEFT_SECONDS)
    lease, over = Lease(uri, me["token"]), threading.Event()
    context = copy_context()
    beats = threading.Thread(target=context.run, args=(_beat, lease, where, me, over), daemon=True)
    beats.start()
    try:
        yield lease
    finally:
        over.set()
        beats.join()
        with suppress(StorageError):  # it lapses by itself
            found = _read(where)
            if found is not None and found[0].get("token") == lease.token:
                storage.delete(where)


def _acquire(where: str, me: Holder, uri: str, what: str) -> None:
    seen, since, told = None, time.monotonic(), False
    while True:
        data = json.dumps({**me, "beat": 0}).encode()
        if _make(where, data):
            return
        found = _read(where)
        if found is None:
            continue
        holder, version = found
        if holder.get("token") == me["token"]:
            return  # the answer to our write was lost, and its repetition found what we wrote
        # Silence is measured by OUR monotonic clock since we last saw a change: clocks of two machines are never
        # compared.
        if (beat := (holder.get("token"), holder.get("beat"))) != seen:
            seen, since = beat, time.monotonic()
        silent = time.monotonic() - since
        if _dead(holder) or silent > SILENT_SECONDS:
            if _take(where, data, version):
                return
            continue
        if not told:
            told = True
            say(
                f"{what}: {shown(uri)} is being written by process {holder.get('pid')} on {holder.get('host')}; "
                f"waiting for it (if it says nothing for {SILENT_SECONDS:.0f} s it counts as dead)"
            )
        time.sleep(min(1.0, BEAT_SECONDS))


def _beat(lease: Lease, where: str, me: Holder, over: threading.Event) -> None:
    number = 0
    while not over.wait(BEAT_SECONDS):
        number += 1
        try:
            found = _read(where)
            if found is not None and found[0].get("token") != lease.token:
                lease.lost.set()
                return
            storage.write_bytes(where, json.dumps({**me, "beat": number}).encode())
        except StorageError:
            continue  # a store that does not answer now may do so at the next beat
