"""Readers of whole JSON documents: a list of objects, as KLUE is published, and SQuAD's nesting, as KorQuAD is.

A document of up to `MAX_BYTES` is parsed at once, which names the line of a fault; a longer one an item at a time.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from kit19_ray.errors import SourceError, quote
from kit19_ray.sources.readers.base import LocatedFile, NoOptions, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.jsonl import JsonlOptions, record, wanted_keys
from kit19_ray.sources.readers.text import has_surrogate, normalise

MAX_BYTES = 256 << 20
_MAX_DEPTH = 200


class _Joined:
    """What was read of a stream already, and the rest of it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = memoryview(head), rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        part = self._head[:size] if size >= 0 else self._head
        self._head = self._head[len(part) :]
        return bytes(part)


def _document(file: LocatedFile, data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SourceError(f"{file.path}: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise SourceError(f"{file.path}, line {error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file.path}: not JSON that can be read: {error}") from None


def _shallow(events: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The events of a document that nests no deeper than rows do: ijson's work grows with the square of the depth."""
    depth = 0
    for event, value in events:
        depth += event.startswith("start_") - event.startswith("end_")
        if depth > _MAX_DEPTH:
            raise ValueError(f"it nests more than {_MAX_DEPTH} deep")
        yield event, value


def _streamed(file: LocatedFile, head: bytes, stream: BinaryIO, items: str) -> Iterator[Any]:
    """The items of a long document; `items` is where they are, in ijson's words."""
    # Not the faster backends: yajl makes `?` of an unpaired surrogate and refuses integers of more than 64 bits.
    from ijson.backends import python as reader
    from ijson.common import JSONError

    joined = _Joined(head.removeprefix(codecs.BOM_UTF8), stream)
    try:
        yield from reader.items(reader.parse(_shallow(reader.basic_parse(joined, use_float=True))), items)
    except (JSONError, ValueError, RecursionError) as error:
        raise SourceError(f"{file.path}: not JSON that can be read: {quote(str(error), plain=True)}") from None


def read_json_array(
    options: JsonlOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """Records of a file that is one list of objects; `line` is the object's number in it.

    Raises:
        SourceError: the file is not JSON or not a list.
    """
    keys = wanted_keys(options)
    head = stream.read(MAX_BYTES + 1)
    if len(head) > MAX_BYTES:
        if not head.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n").startswith(b"["):
            raise SourceError(f"{file.path}: a list of objects is expected, and this does not begin with [")
        document = _streamed(file, head, stream, "item")
    else:
        document = _document(file, head)
        if not isinstance(document, list):
            raise SourceError(f"{file.path}: a list of objects is expected, this is a {type(document).__name__}")
    for number, row in enumerate(document, 1):
        yield record(options, keys, number, row, json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))


def read_squad(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """title, context, question and the first answer of each question of SQuAD 1.1's nesting, numbered from 1.

    Raises:
        SourceError: the file is not JSON or does not nest as SQuAD does.
    """
    head = stream.read(MAX_BYTES + 1)
    number = 0
    try:
        articles = (
            _streamed(file, head, stream, "data.item") if len(head) > MAX_BYTES else _document(file, head)["data"]
        )
        for article in articles:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    texts = {
                        "title": article["title"],
                        "context": paragraph["context"],
                        "question": asked["question"],
                        "answer": asked["answers"][0]["text"] if asked["answers"] else "",
                    }
                    number += 1
                    if not all(isinstance(text, str) for text in texts.values()):
                        yield RejectedRow.of(number, "not_text", str(texts))
                    elif any(map(has_surrogate, texts.values())):
                        yield RejectedRow.of(number, "invalid_utf8", "")
                    else:
                        yield SourceRow(number, {name: normalise(text) for name, text in texts.items()})
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise SourceError(
            f"{file.path}: question {number + 1} does not nest as SQuAD 1.1 does: {quote(error)}"
        ) from None
