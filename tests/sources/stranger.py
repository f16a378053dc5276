"""A source that is in no catalog, for tests of one reader and its options."""

from __future__ import annotations

from kit19_ray.sources.catalog import Source


def source(reader: str, **options: object) -> Source:
    """A source of one file with this reader and these options."""
    return Source.model_validate(
        {
            "title": "A stranger's set",
            "homepage": "https://example.org",
            "licence": {"name": "CC0", "commercial": True, "derivatives": True},
            "citation": "Nobody",
            "reader": reader,
            "options": options,
            "files": [{"path": "data", "split": "train"}],
        }
    )
