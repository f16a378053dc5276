"""The closed list of readers that `catalog.yaml` and a task file's own source may name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, BinaryIO, cast

from pydantic import BaseModel

from kit19_ray.sources.readers.base import LocatedFile, NoOptions, Opener, Reader, RejectedRow, SourceRow, open_uri
from kit19_ray.sources.readers.byte_stream import utf8
from kit19_ray.sources.readers.delimited import DelimitedOptions, read_delimited
from kit19_ray.sources.readers.hate_speech import read_hatescore, read_unsmile
from kit19_ray.sources.readers.instructions import InstructionOptions, is_binary, read_instructions
from kit19_ray.sources.readers.json_array import read_json_array, read_squad
from kit19_ray.sources.readers.jsonl import JsonlOptions, read_jsonl
from kit19_ray.sources.readers.korsts import read_korsts
from kit19_ray.sources.readers.nsmc import read_nsmc
from kit19_ray.sources.readers.petitions import read_petitions
from kit19_ray.sources.readers.sentence_pairs import PairOptions, read_parakqc, read_stylekqc
from kit19_ray.sources.readers.usable import some_usable
from kit19_ray.sources.readers.wiki import read_kowiki

READERS: dict[str, Reader] = {
    "delimited": read_delimited,
    "jsonl": read_jsonl,
    "json": read_json_array,
    "squad": read_squad,
    "nsmc": read_nsmc,
    "unsmile": read_unsmile,
    "hatescore": read_hatescore,
    "korsts": read_korsts,
    "petitions": read_petitions,
    "parakqc": read_parakqc,
    "stylekqc": read_stylekqc,
    "kowiki": read_kowiki,
    "instructions": read_instructions,
}
"""Name -> reader."""

OPTIONS: dict[str, type[BaseModel]] = {
    "delimited": DelimitedOptions,
    "jsonl": JsonlOptions,
    "json": JsonlOptions,
    "nsmc": DelimitedOptions,
    "instructions": InstructionOptions,
    "petitions": JsonlOptions,
    "parakqc": PairOptions,
    "stylekqc": PairOptions,
}
"""Name -> model of its options; `NoOptions` for the others."""


def options_of(reader: str) -> type[BaseModel]:
    """The model that a reader's options must fit."""
    return OPTIONS.get(reader, NoOptions)


class _Counted:
    """A stream that knows how much of it was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.total = stream, 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.total += len(data)
        return data


def read(
    reader: str, options: Mapping[str, Any], file: LocatedFile, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """Streams one located file through the reader of that name, and closes it.

    Args:
        options: the source's; the file's own win over them.
        opener: opens a URI; `storage.open_input` by default.

    Raises:
        SourceError: the file as a whole is not in the source's format, or not one row of a whole file is usable.
    """
    checked = options_of(reader).model_validate({**options, **file.options})

    def opened(uri: str) -> BinaryIO:
        beside = next((f for f in file.companions if f.uri == uri), file)
        return utf8(open_uri(uri, opener), beside.path, beside.size, file.encoding)

    if reader == "instructions" and is_binary(file.path):
        with closing(open_uri(file.uri, opener)) as stream:
            yield from some_usable(READERS[reader](checked, file, stream, opener), file.path, lambda: True)
        return
    with closing(open_uri(file.uri, opener)) as stream:
        counted = _Counted(stream)
        text = utf8(cast(BinaryIO, counted), file.path, file.size, file.encoding)
        rows = READERS[reader](checked, file, text, opened)
        # Who brings an opener may bring a part of the file, which says nothing of the rest.
        yield from some_usable(rows, file.path, lambda: opener is None or counted.total == file.size > 0)
