"""`kit19 push`: a finished training's export, or its adapter, to another prefix or to the hub."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from kit19_ray.artifacts import manifest
from kit19_ray.errors import StorageError, TrainError, UserError, quote
from kit19_ray.io import node_cache, storage
from kit19_ray.redaction import first_line
from kit19_ray.utils.console import say
from kit19_ray.utils.hashing import sha256_stream

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def push(run: str, destination: str, adapter: bool = False, public: bool = False, token_file: str | None = None) -> str:
    """Copies the export and returns where it is.

    Args:
        run: a finished train prefix.
        destination: a folder, an s3:// prefix, or a hub id.
        adapter: the adapter alone.
        public: a repository that the hub makes for it can be read by everybody.
        token_file: holds the hub's token; None takes HF_TOKEN, or what `hf auth login` left.

    Raises:
        TrainError: the run has no adapter.
        StorageError: it is not finished, or something else is at the destination.
        UserError: the destination is neither a place nor a hub id, or the hub refuses.
    """
    uri = storage.normalise(run)
    made = manifest.require(uri, "train")
    folder = made.get("adapter") if adapter else made["export"]
    if not folder:
        raise TrainError(f"{run} was trained without adapters: it has an export alone")
    hashes = manifest.hashes(made, str(folder))
    source = storage.join(uri, str(folder))
    if "://" in destination or destination.startswith(("/", "./", "../", "~")):
        return _copy(source, hashes, storage.normalise(destination))
    if not _HUB_ID.fullmatch(destination):
        raise UserError(
            f"{quote(destination)} is neither a folder (./x), an s3:// prefix nor a hub id (organisation/name)"
        )
    return _to_hub(source, hashes, destination, public, token_file)


def _copy(source: str, hashes: dict[str, str], target: str) -> str:
    """File by file; what is there with the same bytes stays."""
    others = sorted({info.path for info in storage.list_files(target)} - set(hashes))
    if others:
        raise StorageError(
            f"{target} holds other files: {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}",
            hint="name an empty prefix",
        )
    # config.json last: what is there before it is not taken for a model.
    for path in sorted(hashes, key=lambda path: (path == "config.json", path)):
        with tempfile.TemporaryDirectory(prefix="kit19-push-") as folder:
            local = Path(folder, "file")
            storage.copy_out(storage.join(source, path), local)
            with local.open("rb") as file:
                found, _ = sha256_stream(file)
            if found != hashes[path]:
                raise StorageError(f"{source}/{path} is not what was exported: its SHA-256 is another")
            storage.copy_in(local, storage.join(target, path))
    say(f"push: {len(hashes)} files")
    return target


def _to_hub(source: str, hashes: dict[str, str], hub_id: str, public: bool, token_file: str | None) -> str:
    from huggingface_hub import HfApi

    token = Path(token_file).expanduser().read_text().strip() if token_file else None
    local = node_cache.local_dir(source, hashes)
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        api.create_repo(hub_id, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=hub_id, folder_path=str(local), allow_patterns=sorted(hashes), commit_message="kit19 push"
        )
    except Exception as error:  # noqa: BLE001 - the client's own errors change their class with its HTTP library
        said = first_line(error)
        raise UserError(
            f"{hub_id}: the hub did not take it: {said}",
            hint="set HF_TOKEN, or --token-file, to a token that may write there; run it again to go on",
        ) from None
    return str(done.commit_url if hasattr(done, "commit_url") else done)
