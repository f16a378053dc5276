"""A model's files before a library opens them: Git LFS pointers, half files, and files newer than the library.

Reads a few kilobytes of each weight file, so `kit19 plan` can look at a model of any size, here or on S3.
"""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

from kit19_ray.errors import UserError, quote
from kit19_ray.io import storage
from kit19_ray.utils.json_types import Json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LFS = b"version https://git-lfs"
_INDEX = "model.safetensors.index.json"
_JSON = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", _INDEX)
_MAX_HEADER = 100 << 20  # bytes, as safetensors has it
_SAID = 200  # characters of a library's message


def check(uri: str) -> None:
    """Looks at the files of a folder in Hugging Face's layout.

    Raises:
        UserError: one is a Git LFS pointer, half a file or no JSON.
        StorageError: the folder cannot be read.
    """
    found = {info.path: info.size for info in storage.list_files(uri)}
    for name, size in found.items():
        path = storage.join(uri, name)
        if name in _JSON:
            _check_json(path)
        elif name.endswith(".safetensors"):
            _check_weights(path, size)
    if _INDEX in found:
        index = json.loads(storage.read_bytes(storage.join(uri, _INDEX)))
        absent = sorted(set(index.get("weight_map", {}).values()) - set(found))
        if absent:
            raise UserError(
                f"{uri}: {_INDEX} names {len(absent)} files that are not there, such as {quote(absent[0], plain=True)}",
                hint="the download was cut short: fetch it again",
            )


def has_weights(uri: str) -> bool:
    """Whether the folder holds weights that are read here."""
    return any(info.path.endswith(".safetensors") for info in storage.list_files(uri))


def _pointer(path: str) -> UserError:
    return UserError(
        f"{path} is a Git LFS pointer, not the file", hint="run `git lfs pull` in the repository it was cloned from"
    )


def _check_json(path: str) -> None:
    data = storage.read_bytes(path)
    if data.startswith(_LFS):
        raise _pointer(path)
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON: {str(error)[:_SAID]}", hint="it was cut short or altered: fetch it again"
        ) from None


def _check_weights(path: str, size: int) -> None:
    """A safetensors file is 8 bytes of length, a JSON header, and the tensors to the last byte the header names."""
    length, header = _header(path, size)
    whole = _named_end(header)
    if whole == 0 or 8 + length + whole != size:
        what = f"{size:,} bytes of {8 + length + whole:,}" if whole else "it has no safetensors header"
        raise UserError(f"{path} is not a whole safetensors file: {what}", hint="fetch it again")


def weight_names(path: str) -> list[str]:
    """Names of the tensors in a safetensors file that was checked; only its header is read."""
    _, header = _header(path, storage.size(path) or 0)
    return [name for name in json.loads(header) if name != "__metadata__"]


def _header(path: str, size: int) -> tuple[int, bytes]:
    """The length that a safetensors file gives for its header, and the header; empty where the file has none."""
    with closing(storage.open_input(path)) as file:
        start = file.read(len(_LFS))
        if start == _LFS:
            raise _pointer(path)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or length > min(_MAX_HEADER, size):
            return length, b""
        file.seek(8)
        return length, file.read(length)


def _named_end(header: bytes) -> int:
    """The byte after the last tensor, 0 where the header is none."""
    try:
        tensors: Json = json.loads(header)
        return max((int(t["data_offsets"][1]) for name, t in tensors.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return 0


def tokenizer_of(text: str, name: str) -> Tokenizer:
    """A `tokenizer.json`, opened.

    Raises:
        UserError: the file is not one that the library reads.
    """
    from tokenizers import Tokenizer, __version__

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 - the library raises no narrower class
        raise UserError(
            f"{name}: tokenizers {__version__} cannot read it: {str(error)[:_SAID]}",
            hint="it was cut short, or a newer release of tokenizers wrote it",
        ) from None
