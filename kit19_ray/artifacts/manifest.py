"""Stage prefixes and their commit marker: `manifest.json` is written last, and a prefix without it is never read.

It lists every file of the prefix with size and SHA-256 (`listing`), so that a reader can tell a whole prefix from one
that lost a file or a byte since, and says what stage wrote it, so that none is taken for another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from typing import Any, Literal, overload

from kit19_ray.artifacts.data_manifests import DataManifest, ExamplesManifest, FileEntry, RecordsManifest
from kit19_ray.artifacts.stage_manifests import EvaluateManifest, Manifest, TrainManifest
from kit19_ray.errors import StorageError, quote
from kit19_ray.io import s3_objects, storage
from kit19_ray.io.uris import shown, split
from kit19_ray.utils.console import say
from kit19_ray.utils.hashing import sha256_stream

NAME = "manifest.json"
LISTING = "listing"
_THREADS = 8
_NAMED = 3  # files a message names


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, so that equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value)).hexdigest()


def stage_uri(root: str, stage: str, identity: Mapping[str, object]) -> str:
    """`<root>/<stage>-<hash>`, the hash covering exactly what the output depends on."""
    return storage.join(root, f"{stage}-{digest(identity)[:12]}")


def read(uri: str) -> Manifest | None:
    """The prefix's manifest, of whichever stage, or None when the stage was never finished there.

    Raises:
        StorageError: it is there and no manifest: another tool's file, or half of one.
    """
    path = storage.join(uri, NAME)
    if not storage.exists(path):
        return None
    found: Manifest = _json_object(path, storage.read_text(path))
    return found


def _json_object(path: str, text: str) -> Any:
    try:
        loaded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{shown(path)}: not a manifest: {str(error)[:200]}") from None
    if not isinstance(loaded, dict):
        raise StorageError(f"{shown(path)}: a manifest is a JSON object, this is a {type(loaded).__name__}")
    return loaded


@overload
def require(uri: str, verb: Literal["data"], stage: None = None) -> DataManifest: ...
@overload
def require(uri: str, verb: Literal["data"], stage: Literal["records"]) -> RecordsManifest: ...
@overload
def require(uri: str, verb: Literal["data"], stage: Literal["examples"]) -> ExamplesManifest: ...
@overload
def require(uri: str, verb: Literal["train"], stage: None = None) -> TrainManifest: ...
@overload
def require(uri: str, verb: Literal["evaluate"], stage: None = None) -> EvaluateManifest: ...
def require(uri: str, verb: str, stage: str | None = None) -> Manifest:
    """The prefix's manifest.

    Args:
        verb: the `kit19` verb that makes such a prefix.
        stage: what its manifest must say that it is; the verb when None.

    Raises:
        StorageError: there is none, so `kit19 <verb>` has not finished there, or it is another stage's.
    """
    loaded = read(uri)
    if loaded is None:
        raise StorageError(
            f"{shown(uri)} has no {NAME}: `kit19 {verb}` was never finished there",
            hint=f"run `kit19 {verb}` with the same config and root, or name a finished prefix",
        )
    _check_stage(uri, loaded, stage or verb)
    return loaded


def _check_stage(uri: str, loaded: Manifest, stage: str) -> None:
    said = loaded.get("stage")
    if said != stage:
        raise StorageError(
            f"{shown(uri)}: its {NAME} is that of {quote(said)}, not of {quote(stage)}",
            hint="name the prefix that the stage printed",
        )


def finished(uri: str, stage: str) -> Manifest | None:
    """The manifest of a prefix that need not be made again; None where it is absent or a file it lists is not there.

    Sizes are compared, not bytes: readers compare those, see `node_cache`.

    Raises:
        StorageError: another stage's manifest is there.
    """
    loaded = read(uri)
    if loaded is None:
        return None
    _check_stage(uri, loaded, stage)
    wrong = damage(uri, loaded)
    if wrong:
        say(f"{stage}: {shown(uri)} was finished and is damaged: {'; '.join(wrong[:_NAMED])}; made again")
        storage.delete(storage.join(uri, NAME))
        return None
    return loaded


def damage(uri: str, loaded: Mapping[str, Any]) -> list[str]:
    """What of a manifest's listing is absent or has another size, in words."""
    listing: Mapping[str, FileEntry] = loaded.get(LISTING) or {}
    sizes = {info.path: info.size for info in storage.list_files(uri)} if listing else {}
    wrong = []
    for path, entry in listing.items():
        if path not in sizes:
            wrong.append(f"{path} is not there")
        elif sizes[path] != entry["bytes"]:
            wrong.append(f"{path} has {sizes[path]:,} bytes of {entry['bytes']:,}")
    return wrong


def hashes(loaded: Mapping[str, Any], below: str = "") -> dict[str, str]:
    """SHA-256 of each listed file below a folder of the prefix, by its path in that folder."""
    listing: Mapping[str, FileEntry] = loaded.get(LISTING) or {}
    prefix = f"{below}/" if below else ""
    return {p.removeprefix(prefix): entry["sha256"] for p, entry in listing.items() if p.startswith(prefix)}


def commit(
    uri: str, manifest: Manifest, *, known: Mapping[str, str] | None = None, without: Iterable[str] = ()
) -> None:
    """Lists what is in the prefix and writes the commit marker. Call it when everything else is in place.

    Args:
        known: SHA-256 of files by path, from who wrote them: they must be there, and are not read again.
        without: beginnings of paths that are left out of the listing, such as checkpoints, which come and go.

    Raises:
        StorageError: a file of `known` is not there: something else deleted it meanwhile.
    """
    known, skipped = known or {}, tuple(without)
    found = [
        info
        for info in storage.list_files(uri)
        if info.path != NAME and not info.path.endswith(".partial") and not (skipped and info.path.startswith(skipped))
    ]
    absent = sorted(set(known) - {info.path for info in found})
    if absent:
        raise StorageError(
            f"{shown(uri)}: {', '.join(absent[:_NAMED])} was written and is gone: another process deletes below it",
            hint="run the stage again; it goes on with what is there",
        )

    def entry(info: storage.FileInfo) -> FileEntry:
        return {"bytes": info.size, "sha256": known.get(info.path) or _sha256(storage.join(uri, info.path))}

    with ThreadPoolExecutor(_THREADS) as pool:
        contexts = [copy_context() for _ in found]
        listing = dict(
            zip((i.path for i in found), pool.map(lambda c, i: c.run(entry, i), contexts, found), strict=True)
        )
    text = json.dumps({**manifest, LISTING: listing}, sort_keys=True, ensure_ascii=False, indent=1)
    storage.write_bytes(storage.join(uri, NAME), (text + "\n").encode())


def _sha256(uri: str) -> str:
    """The hash we left with the object, else that of its bytes."""
    scheme, path = split(uri)
    if scheme == "s3":
        with storage.translate_errors(uri):
            found = s3_objects.head(path)
        if found is not None and found.sha256:
            return found.sha256
    with closing(storage.open_input(uri)) as file:
        return sha256_stream(file)[0]
