"""The sets a build is cleaned of: `evaluation_sets.yaml`, and their texts read from the sources folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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
from kit19_ray.sources.readers.base import LocatedFile, SourceRow

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
    gold: list[str] = Field(default_factory=list)
    """Multiple choice: label "1" picks the first of these fields, and so on; what it picks is part of the item."""
    apart: bool = False
    """Each of the texts is an item by itself: where pairs are made anew of the same sentences."""
    exact: bool = False
    """A row holds a text only as it is: where texts that differ in a word are items of their own."""


@dataclass(frozen=True)
class Located:
    """A set with the files that are at hand."""

    name: str
    source: Source
    files: tuple[LocatedFile, ...]
    spec: EvaluationSet
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


def find(
    base: str, check: bool, trained: Mapping[str, Collection[str]] | None = None
) -> tuple[list[Located], list[str]]:
    """The sets whose files are below the sources folder `base`, and the names of those that have none there.

    Args:
        check: compare the files with the published hashes.
        trained: source id -> splits that the build draws from, by its own choice; they are no evaluation sets then.

    Raises:
        SourceError: a file is not the published one.
    """
    found: list[Located] = []
    absent: list[str] = []
    for name, spec in load().items():
        source = load_catalog()[spec.source] if isinstance(spec.source, str) else spec.source
        folder = spec.folder or (spec.source if isinstance(spec.source, str) else name)
        files: list[LocatedFile] = []
        drawn = (trained or {}).get(spec.source, ()) if isinstance(spec.source, str) else ()
        splits = [split for split in spec.splits if split not in drawn]
        if not splits:
            continue
        for split in splits:
            try:
                files += locate(folder, source, base, [split])
            except SourceError:
                continue  # said below, as absent, when no split is there
        if files:
            hashes = {file.path: verify_sha256(file, check=check) for file in files}
            found.append(Located(name, source, tuple(files), spec, hashes))
        else:
            absent.append(name)
    return found, absent


def items(located: Located) -> Iterator[list[str]]:
    """The texts of each item of a set."""
    for file in located.files:
        for raw in located.source.read(file):
            if not isinstance(raw, SourceRow):
                continue
            names = [*located.spec.texts, *_gold(located.spec, raw)]
            texts = [raw.fields[name] for name in names if raw.fields.get(name)]
            yield from [[text] for text in texts] if located.spec.apart else [texts]


def _gold(spec: EvaluationSet, raw: SourceRow) -> list[str]:
    """The field that the item's label picks, none where the set has no choices or the item no label."""
    label = raw.fields.get("label", "")
    return [spec.gold[int(label) - 1]] if label.isdecimal() and 0 < int(label) <= len(spec.gold) else []
