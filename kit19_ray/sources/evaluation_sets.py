"""The sets a build is cleaned of: `evaluation_sets.yaml`, and their texts read from the sources folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kit19_ray.config import strict_yaml
from kit19_ray.config.loading import validate
from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import Source, load_catalog
from kit19_ray.sources.files import locate, verify_sha256
from kit19_ray.sources.readers.base import LocatedFile, Raw

EVALUATION_SETS = Path(__file__).parent / "evaluation_sets.yaml"


class EvaluationSet(BaseModel):
    """One set of items that no training row may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: str | Source
    """Id in catalog.yaml, or a source described in place."""
    folder: str | None = None
    """Folder below the sources folder; the source's id when None."""
    splits: list[Literal["train", "validation", "test"]] = Field(min_length=1)
    """Splits that are evaluated on."""
    texts: list[str] = Field(min_length=1)
    """Fields that make an item: a row holds it when it holds all of them."""


@dataclass(frozen=True)
class Located:
    """A set with the files that are at hand."""

    name: str
    source: Source
    files: tuple[LocatedFile, ...]
    texts: tuple[str, ...]
    sha256: dict[str, str]


@lru_cache(maxsize=4)
def load(path: Path = EVALUATION_SETS) -> dict[str, EvaluationSet]:
    """Every evaluation set by name.

    Raises:
        SourceError: the file is not YAML, or a set has a wrong key or value.
    """
    tree = strict_yaml.parse(path.read_bytes(), str(path), SourceError)
    return {name: validate(EvaluationSet, spec, f"{path}: {name}", SourceError) for name, spec in tree.items()}


def own_sources() -> dict[str, tuple[Source, str]]:
    """The sources that only evaluation needs, by set, each with its folder below the sources folder."""
    return {name: (s.source, s.folder or name) for name, s in load().items() if isinstance(s.source, Source)}


def find(base: str, check: bool) -> tuple[list[Located], list[str]]:
    """The sets whose files are below the sources folder `base`, and the names of those that have none there.

    Args:
        check: compare the files with the published hashes.

    Raises:
        SourceError: a file is not the published one.
    """
    found: list[Located] = []
    absent: list[str] = []
    for name, spec in load().items():
        source = load_catalog()[spec.source] if isinstance(spec.source, str) else spec.source
        folder = spec.folder or (spec.source if isinstance(spec.source, str) else name)
        files: list[LocatedFile] = []
        for split in spec.splits:
            try:
                files += locate(folder, source, base, [split])
            except SourceError:
                continue  # said below, as absent, when no split is there
        if files:
            hashes = {file.path: verify_sha256(file, check=check) for file in files}
            found.append(Located(name, source, tuple(files), tuple(spec.texts), hashes))
        else:
            absent.append(name)
    return found, absent


def items(located: Located) -> Iterator[list[str]]:
    """The texts of each item of a set."""
    for file in located.files:
        for raw in located.source.read(file):
            if isinstance(raw, Raw):
                yield [raw.fields[name] for name in located.texts if raw.fields.get(name)]
