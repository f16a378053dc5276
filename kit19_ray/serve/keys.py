"""API keys: who may ask. Only their SHA-256 is held in memory, and a request's key is never logged.

# one key a line: a name, which logs and metrics may show, and the key itself or its hash
alice   sk-0123...
ci      sha256:9f86d081884c7d65...
sk-4567...                          without a name: key-1, key-2, ...
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from pathlib import Path

from kit19_ray.errors import ServeError, quote

ENVIRONMENT = "KIT19_API_KEYS"
"""Environment variable of keys, in the file's form; commas part them too."""
ADMIN_ENVIRONMENT = "KIT19_ADMIN_KEYS"
"""Those of /admin."""

_HASHED = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MIN_LENGTH = 16  # characters: a shorter key can be guessed
_LOOK_SECONDS = 2.0  # a changed file is seen after this


class ApiKeys:
    """Keys of a file and of an environment variable. The file is read again when it changes: so keys are rotated.

    Args:
        file: path of the file; None has none.
        environment: name of the environment variable.
        key: the config key that names the file, for messages.

    Raises:
        ServeError: the file cannot be read, or a line of it is wrong.
    """

    def __init__(self, file: str | None, environment: str = ENVIRONMENT, key: str = "serve.api_keys_file") -> None:
        self._file = Path(file).expanduser() if file else None
        self._key = key
        self._fixed = parse(os.environ.get(environment, "").replace(",", "\n"), environment)
        self._read: dict[str, bytes] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._looked = 0.0
        if self._file is not None:
            self._load(self._file)

    def __bool__(self) -> bool:
        return bool(self._fixed or self._read)

    def owner(self, given: str) -> str | None:
        """The name of the key `given`, or None when it is none of ours."""
        self._reload()
        digest = hashlib.sha256(given.encode("utf-8", "replace")).digest()
        found = None
        # All are compared, each in constant time, so that the time taken tells nothing.
        for name, known in {**self._fixed, **self._read}.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _reload(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            if _stamp(self._file) != self._stamp:
                self._load(self._file)
        except (OSError, ServeError):
            return  # half written, or being replaced: the keys before stay until it can be read

    def _load(self, file: Path) -> None:
        try:
            stamp, text = _stamp(file), file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ServeError(f"{self._key}: {file}: {error}") from None
        self._read, self._stamp = parse(text, f"{self._key}: {file}"), stamp


def parse(text: str, where: str) -> dict[str, bytes]:
    """SHA-256 of each key by its name.

    Raises:
        ServeError: a line is wrong; the message names the line and shows nothing of it.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        name, key = (f"key-{len(keys) + 1}", words[0]) if len(words) == 1 else (words[0], words[1])
        if len(words) > 2 or not _NAME.fullmatch(name):
            raise ServeError(f"{where}: line {number} is not `NAME KEY` or `KEY`")
        if name in keys:
            raise ServeError(f"{where}: line {number}: the name {quote(name)} is there already")
        if key.startswith("sha256:"):
            if not _HASHED.fullmatch(key):
                raise ServeError(f"{where}: line {number}: sha256: is followed by 64 hexadecimal digits")
            keys[name] = bytes.fromhex(key.removeprefix("sha256:"))
        elif len(key) < _MIN_LENGTH:
            raise ServeError(f"{where}: line {number}: the key is shorter than {_MIN_LENGTH} characters")
        else:
            keys[name] = hashlib.sha256(key.encode()).digest()
    return keys


def _stamp(file: Path) -> tuple[int, int, int]:
    # A Secret's mount is a link that is set anew: the inode changes though size and time may not.
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
