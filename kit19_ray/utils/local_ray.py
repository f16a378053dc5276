"""What a Ray of this machine's own needs before it starts: room, open files, a token of its own."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
from pathlib import Path

from kit19_ray.errors import UserError, quote
from kit19_ray.utils.console import say

_FILES = 4096  # open files that raylet, its workers and our shards need at most
_ROOM = 32 << 20  # bytes below which Ray's own processes die one by one, of which it says nothing for a minute


def prepare() -> None:
    """Raises limits and fills in what is missing; call it before a local `ray.init`. Few open files are said aloud.

    Raises:
        UserError: where Ray writes there is no room.
    """
    _check_room(Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"))
    _raise_file_limit()
    _set_token()


def _check_room(folder: Path) -> None:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return  # Ray makes the folder, or says why it cannot
    if free < _ROOM:
        raise UserError(
            f"{quote(str(folder))} has {free >> 20} MB free, too little for Ray's sockets and logs",
            hint="make some 100 MB of room there, or set RAY_TMPDIR to a short path that has it",
        )


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < _FILES // 4:
        say(f"ray: only {wanted} files may be open (ulimit -n); Ray wants some {_FILES // 4}, and may fail")


def _set_token() -> None:
    """A token for a cluster of its own where Ray could not write the one that it makes into ~/.ray."""
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    folder = Path.home() / ".ray"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK) or (folder / "auth_token").exists():
            return
    except OSError:
        pass
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
