"""`catalog.yaml`: what each original source is, under what licence, and which files it has.

The catalogue knows the published files' hashes; `files.locate` finds files, whoever put them there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kit19_ray.config import strict_yaml
from kit19_ray.config.data import known_encoding
from kit19_ray.config.loading import validate
from kit19_ray.errors import SourceError, nearest, quote
from kit19_ray.redaction import without_secrets
from kit19_ray.sources.readers import registry
from kit19_ray.sources.readers.base import LocatedFile, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.registry import READERS, options_of
from kit19_ray.utils.json_types import Json

CATALOG = Path(__file__).parent / "catalog.yaml"
Split = Literal["train", "validation", "test"]
_WILD = frozenset("*?[")


ShownUrl = Annotated[str, AfterValidator(without_secrets)]  # of a page: it goes into cards and messages as it is


class Licence(BaseModel):
    """What may be done with a source."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """As the origin names it."""
    url: ShownUrl | None = None
    """Its text; None when the origin gives none."""
    commercial: bool
    """Whether commercial use is allowed. False where the origin contradicts itself."""
    derivatives: bool
    """Whether changed versions may be passed on."""


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
WebUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+/\S*$")]


class Archive(BaseModel):
    """A published zip or tar file with an original file in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    url: WebUrl
    """Where the archive can be fetched; its name ends in .zip, .tar or .tar.gz."""
    bytes: int | None = Field(default=None, ge=0)
    """Size of the archive."""
    sha256: Sha256 | None = None
    """Hash of the archive. None: not known."""
    member: str
    """The original file's whole name in the archive."""

    @field_validator("url")
    @classmethod
    def _known_kind(cls, url: str) -> str:
        if not url.endswith((".zip", ".tar", ".tar.gz")):
            raise ValueError(f"{quote(url)} must end in .zip, .tar or .tar.gz")
        return url


class SourceFile(BaseModel):
    """One original file, or a pattern of many."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str
    """Below `<sources>/<source id>/`; `*` and `?` match within a name. A file that is listed by name as well is
    not matched again."""
    split: Split
    """Which split it belongs to."""
    bytes: int | None = Field(default=None, ge=0)
    """Size of the published file."""
    sha256: Sha256 | None = None
    """Hash of the published file. None: not known, nothing is checked."""
    rows: int | None = Field(default=None, ge=0)
    """Records of the published file, header excluded."""
    url: WebUrl | None = None
    """Where the file itself can be fetched."""
    archive: Archive | None = None
    """Where the file can be fetched as part of an archive."""
    optional: bool = False
    """The split can be read without it. At least one file of a split must be there all the same."""
    alternative: bool = False
    """Serves where the split's other files are not at hand; fetched only when it is named."""
    encoding: str | None = None
    """What the file is in, as Python names it (cp949, utf-16); None means UTF-8, or what its byte order mark says."""
    options: Json = Field(default_factory=dict)
    """Reader options for this file alone."""
    wrong_rows: dict[str, list[int]] = Field(default_factory=dict)
    """Reason -> lines on which rows start that are wrong in the published file; they are rejects. Without effect on a
    file of another size than `bytes`."""
    companion: str | None = None
    """Path of a file that is read in step with this one."""
    companion_sha256: Sha256 | None = None
    """Hash of the published companion."""
    companion_bytes: int | None = Field(default=None, ge=0)
    """Size of the published companion."""
    companion_url: WebUrl | None = None
    """Where the companion can be fetched."""

    @property
    def is_pattern(self) -> bool:
        """Whether `path` may match several files."""
        return not _WILD.isdisjoint(self.path)

    @field_validator("path", "companion")
    @classmethod
    def _stays_below(cls, path: str | None) -> str | None:
        if path is not None and not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise ValueError(f"{quote(path)} must be a path below the source's folder")
        return path

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        return None if name is None else known_encoding(name)

    @model_validator(mode="after")
    def _one_origin(self) -> SourceFile:
        if self.url and self.archive:
            raise ValueError(f"{self.path}: `url` and `archive` exclude each other")
        if self.is_pattern and (self.url or self.archive or self.sha256):
            raise ValueError(f"{self.path}: a pattern has no url, archive or sha256; list the files by name")
        return self


class Source(BaseModel):
    """One dataset as its authors publish it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    title: str
    homepage: ShownUrl
    """Page that says how to get the files."""
    licence: Licence
    citation: str
    """Whom to credit."""
    reader: str
    """One of `readers.READERS`."""
    options: Json = Field(default_factory=dict)
    """Options of the reader."""
    notes: str = ""
    """What a reader of the data card should know."""
    files: list[SourceFile] = Field(min_length=1)

    def read(self, file: LocatedFile, opener: Opener | None = None) -> Iterator[SourceRow | RejectedRow]:
        """Streams one of its files, see `registry.read`; a row of `wrong_rows` is a reject."""
        known = next((f for f in self.files if f.path == file.path), None)
        rows = registry.read(self.reader, self.options, file, opener)
        if known is None or not known.wrong_rows or file.size != known.bytes:
            return rows
        wrong = {line: reason for reason, lines in known.wrong_rows.items() for line in lines}
        return (
            RejectedRow.of(row.line, wrong[row.line], " | ".join(row.fields.values()))
            if isinstance(row, SourceRow) and row.line in wrong
            else row
            for row in rows
        )

    @field_validator("reader")
    @classmethod
    def _known_reader(cls, name: str) -> str:
        if name not in READERS:
            raise ValueError(f"reader {quote(name)} is not one of {', '.join(READERS)}{nearest(name, READERS)}")
        return name

    @model_validator(mode="after")
    def _sound(self) -> Source:
        paths = [f.path for f in self.files]
        twice = sorted({p for p in paths if paths.count(p) > 1})
        if twice:
            raise ValueError(f"file {quote(twice[0])} is listed twice")
        model = options_of(self.reader)
        for where, options in [("options", self.options)] + [(f"{f.path}: options", f.options) for f in self.files]:
            try:
                model.model_validate({**self.options, **options})
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(map(str, first["loc"])) or "(all)"
                hint = nearest(key, model.model_fields)
                raise ValueError(f"{where}.{key}: {first['msg']}{hint}; reader {quote(self.reader)}") from None
        return self

    def splits(self) -> list[str]:
        """The splits that have files, in the order they are listed."""
        return list(dict.fromkeys(f.split for f in self.files))

    def match(self, file: SourceFile, paths: Collection[str]) -> list[str]:
        """Which of `paths` are `file`, sorted: itself, or what its pattern matches and no other file names."""
        if not file.is_pattern:
            return [file.path] if file.path in paths else []
        named = {f.path for f in self.files}
        return sorted(p for p in paths if p not in named and matches(p, file.path))


@lru_cache(maxsize=4)
def load_catalog(path: Path = CATALOG) -> dict[str, Source]:
    """Every source by id.

    Raises:
        SourceError: the file is not YAML, names a key twice, or a source has a wrong key or value.
    """
    tree = strict_yaml.parse(path.read_bytes(), str(path), SourceError)
    return {name: validate(Source, spec, f"{path}: {name}", SourceError) for name, spec in tree.items()}


def matches(path: str, pattern: str) -> bool:
    """Whether a file's path is `pattern`, or fits it name by name."""
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)
