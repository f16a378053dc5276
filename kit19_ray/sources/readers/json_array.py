"""Readers of whole JSON documents: a list of objects, as KLUE is published, and SQuAD's nesting, as KorQuAD is.

JSON cannot be read in part, so a document is limited to `MAX_BYTES`; these are evaluation sets of a few megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers.base import LocatedFile, NoOptions, Opener, Raw, Reject
from kit19_ray.sources.readers.jsonl import JsonlOptions, record, wanted_keys
from kit19_ray.sources.readers.text import has_surrogate, normalise

MAX_BYTES = 256 << 20


def _document(file: LocatedFile, stream: BinaryIO) -> Any:
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SourceError(f"{file.path}: a JSON document of more than {MAX_BYTES >> 20} MiB; use JSON Lines")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SourceError(f"{file.path}: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise SourceError(f"{file.path}, line {error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file.path}: not JSON that can be read: {error}") from None


def read_json_array(
    options: JsonlOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[Raw | Reject]:
    """Records of a file that is one list of objects; `line` is the object's number in it.

    Raises:
        SourceError: the file is not JSON, not a list, or too large.
    """
    keys = wanted_keys(options)
    document = _document(file, stream)
    if not isinstance(document, list):
        raise SourceError(f"{file.path}: a list of objects is expected, this is a {type(document).__name__}")
    for number, row in enumerate(document, 1):
        yield record(options, keys, number, row, json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))


def read_squad(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[Raw | Reject]:
    """title, context, question and the first answer of each question of SQuAD 1.1's nesting, numbered from 1.

    Raises:
        SourceError: the file is not JSON or does not nest as SQuAD does.
    """
    document = _document(file, stream)
    number = 0
    try:
        for article in document["data"]:
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
                        yield Reject.of(number, "not_text", str(texts))
                    elif any(map(has_surrogate, texts.values())):
                        yield Reject.of(number, "invalid_utf8", "")
                    else:
                        yield Raw(number, {name: normalise(text) for name, text in texts.items()})
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise SourceError(f"{file.path}: question {number + 1} does not nest as SQuAD 1.1 does: {error!r}") from None
