"""Data that are instructions already: Alpaca, ShareGPT, OpenAI messages and plain text; JSON Lines, JSON, CSV, Parquet.

    alpaca      instruction, input, output                          {"instruction": ..., "input": ..., "output": ...}
    sharegpt    conversations of from and value                     {"conversations": [{"from": "human", "value": ...}]}
    messages    messages of role and content                        {"messages": [{"role": "user", "content": ...}]}
    text        text that is learned as it is                       {"text": ...}, or a line of a .txt file

A conversation comes out as one field, canonical JSON of its turns: an optional system turn, then user and assistant in
turn, ending with the assistant's. What does not fit is a reject.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from kit19_ray.errors import SourceError, nearest, quote
from kit19_ray.sources.readers.base import LocatedFile, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.lines import physical_lines
from kit19_ray.sources.readers.text import has_surrogate, normalise

Format = Literal["alpaca", "sharegpt", "messages", "text"]
COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "alpaca": {
        "instruction": ("instruction", "prompt", "question", "query"),
        "input": ("input", "context"),
        "output": ("output", "response", "answer", "completion"),
    },
    "sharegpt": {"messages": ("conversations", "conversation", "messages")},
    "messages": {"messages": ("messages", "conversations", "conversation")},
    "text": {"text": ("text", "content", "document")},
}
"""Format -> our field -> the names it is looked for under, the usual one first."""
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
"""How the names of files end that can be read, `.gz` and `.zst` set aside."""
COMPRESSED = (".gz", ".zst")
_OPTIONAL = frozenset({"input"})
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
_LONGEST_CELL = 16 << 20  # characters of a CSV cell
_MAX_ITEMS = 2000  # rows of a Parquet file held at once


class InstructionOptions(BaseModel):
    """Options of the `instructions` reader."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Format
    """What a row is, see the module."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our field -> the file's column; those that are not named are looked for under their usual names."""


def is_binary(path: str) -> bool:
    """Whether a file is no text, and so is read as it is, from any place in it."""
    return ending(path) == ".parquet"


def ending(path: str) -> str:
    """How a file's name ends, compression set aside; empty when no such file can be read."""
    for mark in COMPRESSED:
        path = path.removesuffix(mark)
    return next((e for e in ENDINGS if path.lower().endswith(e)), "")


def read_instructions(
    options: InstructionOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """Records of a file in one of the formats.

    Raises:
        SourceError: the file's kind is not known, or no column of its holds what the format needs.
    """
    rows = _ROWS.get(ending(file.path))
    if rows is None:
        raise SourceError(f"{file.path}: cannot be read: its name ends in none of {', '.join(ENDINGS)} "
                          "(.gz and .zst may follow)")  # fmt: skip
    for number, (line, row, text) in enumerate(rows(file, stream)):
        if isinstance(row, str):  # a reason
            yield RejectedRow.of(line, row, text)
        else:
            if not number:
                _check_columns(options, row, file.path)
            yield _record(options, line, row, text)


def _column(options: InstructionOptions, name: str, row: Mapping[str, Any]) -> str | None:
    """The column of a row that holds a field: rows need not agree in their keys."""
    if name in options.columns:
        return options.columns[name] if options.columns[name] in row else None
    return next((usual for usual in COLUMNS[options.format][name] if usual in row), None)


def _check_columns(options: InstructionOptions, row: Mapping[str, Any], path: str) -> None:
    """Raises SourceError: the first row of a file has nothing for a field."""
    fields = COLUMNS[options.format]
    for name in (*options.columns, *fields):
        if name not in fields:
            raise SourceError(
                f"columns: {quote(name)} is no field of format {options.format}{nearest(name, fields)}; "
                f"it has {', '.join(fields)}"
            )
        if _column(options, name, row) is None and (name not in _OPTIONAL or name in options.columns):
            wanted = [options.columns[name]] if name in options.columns else list(fields[name])
            has = ", ".join(repr(key)[:80] for key in list(row)[:20])
            raise SourceError(
                f"{path}: no column {' or '.join(repr(w)[:80] for w in wanted)} for {quote(name)} of format "
                f"{options.format}{nearest(wanted[0], row)}; it has {has}",
                hint=f"name it: columns: {{{name}: ...}}",
            )


def _record(options: InstructionOptions, line: int, row: Mapping[str, Any], text: str) -> SourceRow | RejectedRow:
    fields: dict[str, str] = {}
    for name in COLUMNS[options.format]:
        column = _column(options, name, row)
        if column is None and name not in _OPTIONAL:
            return RejectedRow.of(line, f"missing_{name}", text)
        value = row[column] if column is not None else None
        if name == "messages":
            made = turns(value)
            if not made:
                return RejectedRow.of(line, "not_a_conversation", text)
            fields[name] = json.dumps(made, ensure_ascii=False)
            continue
        if value is not None and not isinstance(value, str | int | float):
            return RejectedRow.of(line, "not_text", text)
        plain = "" if value is None else str(value)
        if has_surrogate(plain):
            return RejectedRow.of(line, "invalid_utf8", text)
        fields[name] = normalise(plain)
        if not fields[name] and name not in _OPTIONAL:
            return RejectedRow.of(line, f"empty_{name}", text)
    return SourceRow(line, fields)


def turns(value: Any) -> list[dict[str, str]] | None:
    """A conversation as roles and contents, in either naming; None when it is none that can be learned from.

    Turns behind the assistant's last are left out: nobody answers them.
    """
    if isinstance(value, str):  # a CSV cell
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list):
        return None
    found: list[dict[str, str]] = []
    for turn in value:
        if not isinstance(turn, dict):
            return None
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or not isinstance(content, str) or has_surrogate(content):
            return None
        content = normalise(content)
        if not content:
            return None
        found.append({"role": _ROLES.get(role, role), "content": content})
    while found and found[-1]["role"] != "assistant":
        found.pop()
    spoken = found[1:] if found and found[0]["role"] == "system" else found
    expected = ["user", "assistant"] * (len(spoken) // 2)
    return found if spoken and [t["role"] for t in spoken] == expected else None


Row = tuple[int, "Mapping[str, Any] | str", str]


def _texts(stream: BinaryIO) -> Iterator[tuple[int, str, str]]:
    """Each line's number, what it is rejected for ("" for nothing) and its text."""
    for line, data in enumerate(physical_lines(stream), 1):
        if data is None:
            yield line, "line_too_long", ""
            continue
        try:
            yield line, "", data.decode()
        except UnicodeDecodeError:
            yield line, "invalid_utf8", data.decode("utf-8", "replace")


def _jsonl(file: LocatedFile, stream: BinaryIO) -> Iterator[Row]:
    for line, reason, text in _texts(stream):
        if reason:
            yield line, reason, text
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            # Of ASCII's blanks alone: a line of ideographic spaces is what somebody wrote, and no JSON.
            yield line, "invalid_json" if text.strip(" \t\n\r\x0b\f") else "empty_line", text
        else:
            yield line, row if isinstance(row, dict) else "not_an_object", text


def _json(file: LocatedFile, stream: BinaryIO) -> Iterator[Row]:
    import ijson

    try:
        for number, row in enumerate(ijson.items(stream, "item", use_float=True), 1):
            text = json.dumps(row, ensure_ascii=False, default=str)[:2000]
            yield number, row if isinstance(row, dict) else "not_an_object", text
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise SourceError(f"{file.path}: not a JSON array of objects: {str(error)[:200]}") from None


def _table(file: LocatedFile, stream: BinaryIO) -> Iterator[Row]:
    delimiter = "\t" if ending(file.path) == ".tsv" else ","
    csv.field_size_limit(_LONGEST_CELL)
    text = io.TextIOWrapper(io.BufferedReader(_Raw(stream)), "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter)
    try:
        header = next(reader, None)
        if not header:
            raise SourceError(f"{file.path}: the file is empty; its header row is missing")
        line = reader.line_num + 1
        for cells in reader:
            if not cells:
                yield line, "empty_line", ""
            elif len(cells) != len(header):
                yield line, "too_few_columns" if len(cells) < len(header) else "too_many_columns", " | ".join(cells)
            else:
                yield line, dict(zip(header, cells, strict=True)), " | ".join(cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise SourceError(f"{file.path}, line {reader.line_num}: not CSV: {str(error)[:200]}") from None


def _parquet(file: LocatedFile, stream: BinaryIO) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(stream).iter_batches(batch_size=_MAX_ITEMS)
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield number, row, json.dumps(row, ensure_ascii=False, default=str)[:2000]
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file.path}: not a Parquet file: {str(error)[:200]}") from None


def _lines(file: LocatedFile, stream: BinaryIO) -> Iterator[Row]:
    for line, reason, text in _texts(stream):
        yield line, reason or ({"text": text} if text.strip() else "empty_line"), text


class _Raw(io.RawIOBase):
    """Any stream as one that `io` can wrap, left open when the wrapper goes."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's name for it is private
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


_ROWS = {".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet, ".txt": _lines}
