"""A source that is in no catalog, for tests of one reader and its options."""

from __future__ import annotations

from kit19_ray.sources.catalog import Source


def spec(**changes: object) -> dict[str, object]:
    """An entry of `catalog.yaml` with these keys changed."""
    return {
        "title": "A stranger's set",
        "homepage": "https://example.org",
        "licence": {"name": "CC0", "commercial": True, "derivatives": True},
        "citation": "Nobody",
        "reader": "delimited",
        "files": [{"path": "a.tsv", "split": "train"}],
    } | changes


def source(reader: str, **options: object) -> Source:
    """A source of one file with this reader and these options."""
    return Source.model_validate(spec(reader=reader, options=options))
