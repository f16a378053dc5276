"""The generic reader of JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from pydantic import Field

from kit19_ray.sources.readers.base import LocatedFile, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.delimited import FieldOptions, finish
from kit19_ray.sources.readers.lines import physical_lines
from kit19_ray.sources.readers.text import composed, has_surrogate, normalise


class JsonlOptions(FieldOptions):
    """Options of the `jsonl` reader. A key that is absent from a line is a reject (`missing_key`)."""

    keep: list[str] = Field(min_length=1)
    """Fields kept, by their new names. Lines need not agree on their keys, so these must be named."""


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return None


def read_jsonl(
    options: JsonlOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """Records of a file with one JSON object a line; numbers become text, null becomes empty."""
    keys = wanted_keys(options)
    for number, data in enumerate(physical_lines(stream), 1):
        yield _of_line(options, keys, number, data)


def wanted_keys(options: JsonlOptions) -> list[tuple[str, str]]:
    """Field names with the keys that hold them."""
    back = {new: old for old, new in options.rename.items()}
    names = dict.fromkeys(
        [
            *options.keep,
            *options.labels,
            *options.drop_empty,
            *([options.group] if options.group else []),
        ]
    )
    return [(name, composed(back.get(name, name))) for name in names]


def _of_line(
    options: JsonlOptions, keys: list[tuple[str, str]], line: int, data: bytes | None
) -> SourceRow | RejectedRow:
    if data is None:
        return RejectedRow(line, "line_too_long", "")
    try:
        row = json.loads(data.decode())
    except UnicodeDecodeError:
        return RejectedRow.of(line, "invalid_utf8", data)
    except (ValueError, RecursionError):
        return RejectedRow.of(line, "invalid_json" if data.strip() else "empty_line", data)
    return record(options, keys, line, row, data)


def record(
    options: JsonlOptions, keys: list[tuple[str, str]], line: int, row: Any, data: bytes
) -> SourceRow | RejectedRow:
    """The record of a parsed JSON value.

    Args:
        data: the value as the file has it, for a reject.
    """
    if not isinstance(row, dict):
        return RejectedRow.of(line, "not_an_object", data)
    fields: dict[str, str] = {}
    if any(key not in row for _, key in keys):
        row = {composed(key): value for key, value in row.items()}
    for name, key in keys:
        if key not in row:
            return RejectedRow.of(line, "missing_key", data)
        text = _text(row[key])
        if text is None:
            return RejectedRow.of(line, "not_text", data)
        if has_surrogate(text):
            return RejectedRow.of(line, "invalid_utf8", data)
        fields[name] = normalise(text)
    return finish(options, line, fields)
