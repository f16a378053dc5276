"""Stage prefixes and their commit marker: `manifest.json` is written last, and a prefix without it is never read."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kit19_ray.errors import StorageError
from kit19_ray.io import storage

NAME = "manifest.json"


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, so that equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def stage_uri(root: str, stage: str, identity: dict[str, Any]) -> str:
    """`<root>/<stage>-<hash>`, the hash covering exactly what the output depends on."""
    return storage.join(root, f"{stage}-{digest(identity)[:12]}")


def read(uri: str) -> dict[str, Any] | None:
    """The prefix's manifest, or None when the stage was never finished there."""
    path = storage.join(uri, NAME)
    if not storage.exists(path):
        return None
    loaded = json.loads(storage.read_text(path))
    if not isinstance(loaded, dict):
        raise StorageError(f"{path}: a manifest is a JSON object, this is a {type(loaded).__name__}")
    return loaded


def require(uri: str, verb: str) -> dict[str, Any]:
    """The prefix's manifest.

    Raises:
        StorageError: there is none, so `kit19 <verb>` has not finished there.
    """
    found = read(uri)
    if found is None:
        raise StorageError(
            f"{uri} has no {NAME}: `kit19 {verb}` was never finished there",
            hint=f"run `kit19 {verb}` with the same config and root, or name a finished prefix",
        )
    return found


def commit(uri: str, manifest: dict[str, Any]) -> None:
    """Writes the commit marker. Call it when everything else is in place."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, indent=1)
    storage.write_bytes(storage.join(uri, NAME), (text + "\n").encode())
