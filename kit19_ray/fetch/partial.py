"""The bytes of one URL received so far, kept on this machine until the whole file is at its target.

A run that is killed leaves them, and the next one goes on from there. The file is its own lock: of two runs that want
the same bytes, the second waits and then finds them fetched, or goes on where the first one died.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from kit19_ray.fetch import archive
from kit19_ray.fetch.plan import Published
from kit19_ray.io import node_cache, storage
from kit19_ray.utils.hashing import sha256_stream

_POLL_SECONDS = 0.1


def folder(base: str) -> Path:
    """Where unfinished downloads are: in the sources folder `base` when it is local, so that a whole file needs only
    a new name; else in `node_cache.folder()`."""
    local = storage.local_path(base)
    return local / ".downloads" if local else node_cache.folder() / "downloads"


class Partial:
    """A growing file, locked while it is open.

    Attributes:
        path: where it is.
        waited: whether another run held it.
        validator: the server's strong ETag or the date of the version these bytes are of; None: it gave none.
    """

    def __init__(self, where: Path, published: Published) -> None:
        key = hashlib.sha256(f"{published.url} {published.sha256}".encode()).hexdigest()[:32]
        self.path = where / f"{key}.partial"
        self._note = self.path.with_suffix(".validator")
        self._member = self.path.with_suffix(".member")
        self._file: BinaryIO | None = None
        self.waited = False
        self.validator: str | None = None

    def _claim(self) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = self.path.open("ab")
        except FileNotFoundError:  # another run that was done removed the empty folder just now
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have finished and removed the file whose lock this now is.
            if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                self._file = file
        except (BlockingIOError, FileNotFoundError):
            self.waited = True
        finally:
            if self._file is None:
                file.close()
        return self._file is not None

    async def __aenter__(self) -> Partial:
        while not self._claim():
            await asyncio.sleep(_POLL_SECONDS)
        self.validator = self._note.read_text() if self._note.exists() else None
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.size:
            self.discard()
        self._open.close()
        self._file = None

    def sweep(self) -> None:
        """Removes what a run left that was killed between the target and its own tidying up; one at work is let be."""
        if (self.path.exists() or self._note.exists()) and self._claim():
            self.discard()
            self._open.close()
            self._file = None

    @property
    def _open(self) -> BinaryIO:
        assert self._file is not None
        return self._file

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self._open.tell()

    def append(self, data: bytes) -> None:
        """Adds bytes; the operating system has them when this returns, so a kill of the process loses none."""
        self._open.write(data)
        self._open.flush()

    def restart(self, validator: str | None) -> None:
        """Forgets all bytes; those to come are of the version that `validator` names."""
        self._open.truncate(0)
        self._open.seek(0)
        self.validator = validator
        if validator is None:
            self._note.unlink(missing_ok=True)
        else:
            self._note.write_text(validator)

    def sha256(self) -> str:
        """Hash of the bytes so far."""
        with self.path.open("rb") as file:
            return sha256_stream(file)[0]

    def discard(self) -> None:
        """Removes what is kept."""
        for path in (self._member, self._note, self.path):
            path.unlink(missing_ok=True)

    def deliver(
        self, published: Published, member: str | None, target: str, size: int | None = None, sha256: str | None = None
    ) -> None:
        """Puts the file, or the archive's member, at `target`, where it appears whole; nothing is kept here.

        Args:
            size, sha256: of the member, where they are known: both are compared while it is unpacked.

        Raises:
            FetchError: the archive cannot be unpacked, has no such member, or has another file under its name.
            StorageError: the target cannot be written.
        """
        whole = self.path
        if member is not None:
            whole = self._member
            with archive.opened(self.path, published, member) as source, whole.open("wb") as out:
                archive.copy(source, out, f"{published.shown}: {member}", self.path.stat().st_size, size, sha256)
        storage.move_in(whole, target)
        self.discard()
