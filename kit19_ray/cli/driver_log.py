"""The log of a stage's driver, kept where it outlives the job: in a file of the pod, and in the object store.

KIT19_DRIVER_LOG       a file, which the head's `driver-log` container shows as its own log
KIT19_DRIVER_LOG_URI   an object; written once a minute while there is more, and in the end
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO, BinaryIO

from kit19_ray.errors import UserError
from kit19_ray.io import storage
from kit19_ray.utils.console import say

_UPLOAD_SECONDS = 60.0
_LAST_SECONDS = 2.0
_KEPT_BYTES = 32 << 20
"""Of the log's end: all that is kept in memory and in the object store."""


class DriverLog:
    """Takes in what processes print and hands it on to this process' own stdout and stderr.

    Args:
        file: gets all of it; None writes none.
        uri: gets its last 32 MiB; None writes none.
    """

    def __init__(self, file: str | None, uri: str | None, upload_seconds: float = _UPLOAD_SECONDS) -> None:
        self._uri, self._upload_seconds = uri, upload_seconds
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if file else None
        self._text, self._grown = bytearray(), False
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._uploader = threading.Thread(target=self._upload_often, daemon=True)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> DriverLog:
        """What the two variables say."""
        return cls(environ.get("KIT19_DRIVER_LOG"), environ.get("KIT19_DRIVER_LOG_URI"))

    @property
    def wanted(self) -> bool:
        """Whether it is kept anywhere."""
        return self._file is not None or self._uri is not None

    def __enter__(self) -> DriverLog:
        if self._uri:
            self._uploader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._uri:
            self._uploader.join()
            self._upload()
        if self._file is not None:
            os.close(self._file)

    def copy(self, child: subprocess.Popen[bytes]) -> None:
        """Copies both streams of a process until it ends, and what it printed last."""
        assert child.stdout is not None and child.stderr is not None
        streams = ((child.stdout, sys.stdout.buffer), (child.stderr, sys.stderr.buffer))
        threads = [threading.Thread(target=self._pump, args=pair, daemon=True) for pair in streams]
        for thread in threads:
            thread.start()
        child.wait()
        for thread in threads:
            thread.join(_LAST_SECONDS)  # what it started may hold its streams open for ever

    def add(self, text: bytes) -> None:
        """Takes in a piece of text."""
        with self._lock:
            if self._file is not None:
                os.write(self._file, text)
            if self._uri:
                self._text += text
                del self._text[: max(0, len(self._text) - _KEPT_BYTES)]
                self._grown = True

    def _pump(self, source: IO[bytes], target: BinaryIO) -> None:
        with source:
            while piece := os.read(source.fileno(), 1 << 16):
                target.write(piece)
                target.flush()
                self.add(piece)

    def _upload_often(self) -> None:
        while not self._ended.wait(self._upload_seconds):
            self._upload()

    def _upload(self) -> None:
        with self._lock:
            text, grown, self._grown = bytes(self._text), self._grown, False
        if not grown or not self._uri:
            return
        try:
            storage.write_bytes(self._uri, text)
        except UserError as error:
            say(f"the log cannot be kept at {self._uri}: {error.message}")
