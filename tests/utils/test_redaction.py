"""Secrets in URLs are not shown."""

from __future__ import annotations

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import Source
from kit19_ray.sources.files import locate
from kit19_ray.utils.redaction import without_secrets
from tests.sources.stranger import spec

SECRET = "https://user:hunter2@host.example/a/rows.tsv?X-Amz-Signature=SECRETSIG#part"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (SECRET, "https://host.example/a/rows.tsv"),
        ("https://host.example?token=s", "https://host.example"),
        ("https://a@b@host/x@y", "https://host/x@y"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("/a/b?c", "/a/b?c"),
    ],
)
def test_a_url_keeps_its_place_and_loses_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_where_to_get_a_missing_file_is_said_without_them(tmp_path: object) -> None:
    own = Source.model_validate(spec(files=[{"path": "a.tsv", "split": "train", "url": SECRET}]))
    with pytest.raises(SourceError, match="https://host.example/a/rows.tsv") as told:
        locate("own", own, str(tmp_path), ["train"])
    assert "hunter2" not in str(told.value) and "SECRETSIG" not in str(told.value)
