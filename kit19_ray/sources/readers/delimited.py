"""The generic reader of delimited text: most sources are this and a few options in `catalog.yaml`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field

from kit19_ray.sources.readers.base import LocatedFile, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.table import Dialect, Table
from kit19_ray.sources.readers.text import normalise


class FieldOptions(BaseModel):
    """What becomes of a row's columns, whatever the file format."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rename: dict[str, str] = Field(default_factory=dict)
    """Column -> field name; each must be in the file. Others keep their names."""
    keep: list[str] | None = None
    """Fields kept, by their new names; each must be in the file. None keeps every named column."""
    labels: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Field -> the file's label -> our label. Another value is a reject (`unknown_label`)."""
    drop_empty: list[str] = Field(default_factory=list)
    """Fields that must hold text (`empty_field`)."""
    placeholders: list[str] = Field(default_factory=list)
    """Texts that stand for "no text"; a kept field that equals one is a reject (`placeholder`)."""
    group: str | None = None
    """Field whose equal values belong on the same side of a train/validation split."""


class DelimitedOptions(FieldOptions):
    """Options of the `delimited` reader."""

    delimiter: str = Field(default="\t", min_length=1, max_length=1)
    """One character between cells."""
    quoting: Literal["none", "csv"] = "none"
    """none: quotes are letters. csv: RFC 4180 quoting."""
    header: bool | list[str] = True
    """True: the first row names the columns. A list: the file has no header and these are its columns."""


def finish(options: FieldOptions, line: int, fields: dict[str, str]) -> SourceRow | RejectedRow:
    """Applies placeholders, empty-field and label rules to normalised fields, in this order."""
    if options.placeholders and any(v in options.placeholders for v in fields.values()):
        return RejectedRow.of(line, "placeholder", " | ".join(fields.values()))
    for name in options.drop_empty:
        if not fields[name]:
            return RejectedRow.of(line, "empty_field", " | ".join(fields.values()))
    for name, mapping in options.labels.items():
        label = mapping.get(fields[name])
        if label is None:
            return RejectedRow.of(line, "unknown_label", " | ".join(fields.values()))
        fields[name] = label
    return SourceRow(line, fields, fields[options.group] if options.group else None)


def open_table(options: DelimitedOptions, file: LocatedFile, stream: BinaryIO) -> Table:
    """The file as a table.

    Raises:
        SourceError: see `Table`.
    """
    header = options.header if isinstance(options.header, list) else None
    return Table(stream, file.path, Dialect(options.delimiter, options.quoting), header)


def columns(options: FieldOptions, table: Table) -> list[tuple[str, int]]:
    """Field names with their column numbers.

    Raises:
        SourceError: a column that the options name is not in the header.
    """
    back = {new: old for old, new in options.rename.items()}
    every = [options.rename.get(c, c) for c in table.columns if c]
    names = every if options.keep is None else options.keep
    needed = [*names, *options.rename.values(), *options.labels, *options.drop_empty]
    places = {
        name: table.index(back.get(name, name)) for name in [*needed, *([options.group] if options.group else [])]
    }
    return list(places.items())


def read_cells(
    options: DelimitedOptions, file: LocatedFile, stream: BinaryIO, clean: Callable[[str, str], str]
) -> Iterator[SourceRow | RejectedRow]:
    """Records of a delimited file; `clean` makes a field of its name and its cell."""
    table = open_table(options, file, stream)
    places = columns(options, table)
    for row in table:
        if isinstance(row, RejectedRow):
            yield row
        else:
            yield finish(options, row.line, {name: clean(name, row.cells[i]) for name, i in places})


def read_delimited(
    options: DelimitedOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """Records of a delimited file; see `DelimitedOptions`."""
    return read_cells(options, file, stream, lambda _, cell: normalise(cell))
