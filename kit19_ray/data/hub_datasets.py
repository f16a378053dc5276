"""Instruction data that a hub id names: its files are copied once below the root, where every node reads them.

<root>/sources/hub/<organisation>/<name>/<revision>/   the files as they are in the repository
                                        _kit19.json    written last: the commit and the files
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

from kit19_ray.config.schema import Config, DatasetConfig
from kit19_ray.errors import SourceError, quote
from kit19_ray.io import storage
from kit19_ray.redaction import first_line
from kit19_ray.sources.readers import instructions
from kit19_ray.utils.console import say

MARKER = "_kit19.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ABOUT = frozenset({"dataset_infos.json", "dataset_info.json", "state.json", "package.json"})  # of the data, not data


class Copy(TypedDict):
    """MARKER."""

    commit: str
    files: list[str]


def is_hub_id(entry: DatasetConfig) -> bool:
    """Whether the entry's path is a hub id: it looks like one, and nothing of that name is here."""
    return "://" not in entry.path and bool(_HUB_ID.fullmatch(entry.path)) and not Path(entry.path).exists()


def prefix(root: str, entry: DatasetConfig) -> str:
    """Where the entry's files are, or will be."""
    return storage.join(root, "sources", "hub", entry.path, entry.revision or "main")


def is_here(root: str, entry: DatasetConfig) -> bool:
    """Whether the entry's files have been copied."""
    return storage.exists(storage.join(prefix(root, entry), MARKER))


def fetch(config: Config) -> None:
    """Copies what is not here yet.

    Raises:
        SourceError: there is no such dataset, it is gated, or the hub cannot be reached.
    """
    for entry in config.data.datasets:
        if is_hub_id(entry) and not is_here(config.root, entry):
            _fetch(prefix(config.root, entry), entry)


def _fetch(uri: str, entry: DatasetConfig) -> None:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    at = f"data.datasets: {entry.path}"
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        info = HfApi(endpoint=endpoint).dataset_info(entry.path, revision=entry.revision)
        names = readable(sibling.rfilename for sibling in info.siblings or [])
        if not names:
            endings = ", ".join(instructions.ENDINGS)
            raise SourceError(f"{at}: the repository has no file that can be read", hint=f"files end in {endings}")
        say(f"data: {entry.path} from the hub, commit {info.sha}: {len(names)} files")
        with tempfile.TemporaryDirectory(prefix="kit19-hub-") as folder:
            for name in names:
                local = hf_hub_download(
                    entry.path, name, repo_type="dataset", revision=info.sha, local_dir=folder, endpoint=endpoint
                )
                storage.copy_in(Path(local), storage.join(uri, name))
                Path(local).unlink()
    except GatedRepoError:
        raise SourceError(f"{at} is gated", hint="accept its terms on its page, and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise SourceError(f"{at}: the dataset has no revision {quote(entry.revision)}") from None
    except RepositoryNotFoundError:
        raise SourceError(
            f"{at}: no file or folder here, and no dataset on the hub that this token may read",
            hint="mend the path, or set HF_TOKEN for a private dataset",
        ) from None
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001 - the client's own errors change their class with its HTTP library
        said = first_line(error)
        raise SourceError(
            f"{at}: the hub cannot be reached: {said}",
            hint="where there is no way out, download the dataset elsewhere and give its folder as the path",
        ) from None
    copy: Copy = {"commit": info.sha or "", "files": names}
    storage.write_text(storage.join(uri, MARKER), json.dumps(copy))


def readable(paths: Iterable[str]) -> list[str]:
    """The files of a repository that are data: its parquet files where it has any, else all that can be read."""
    found = [
        p for p in paths if instructions.ending(p) and p.rpartition("/")[2] not in _ABOUT and not p.startswith(".")
    ]
    tables = [path for path in found if instructions.ending(path) == ".parquet"]
    return sorted(tables or found)


def of_split(paths: list[str], split: str | None) -> list[str]:
    """Those whose path has the split as a word, such as data/train-00000-of-00002.parquet."""
    if split is None:
        return paths
    word = re.compile(rf"(?<![a-z0-9]){re.escape(split.lower())}(?![a-z0-9])")
    return [path for path in paths if word.search(path.lower())]
