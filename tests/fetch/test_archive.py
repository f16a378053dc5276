"""A member is held to what is known of it while it is unpacked."""

from __future__ import annotations

import hashlib
import io

import pytest

from kit19_ray.errors import FetchError
from kit19_ray.fetch import archive

DATA = b"row\n" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(("size", "sha256"), [(400, SHA256), (None, SHA256), (400, None), (None, None)])
def test_the_published_file_is_copied(size: int | None, sha256: str | None) -> None:
    out = io.BytesIO()
    archive.copy(io.BytesIO(DATA), out, "a.zip: rows", 100, size, sha256)
    assert out.getvalue() == DATA


@pytest.mark.parametrize(
    ("size", "sha256", "said"),
    [
        (399, SHA256, "it unpacks to more than 399 bytes"),
        (401, SHA256, "it has 400 bytes, the published file has 401"),
        (400, "0" * 64, f"its SHA-256 is {SHA256}, the published file's is 000"),
    ],
)
def test_another_file_is_refused(size: int, sha256: str, said: str) -> None:
    with pytest.raises(FetchError, match=f"a.zip: rows: {said}"):
        archive.copy(io.BytesIO(DATA), io.BytesIO(), "a.zip: rows", 100, size, sha256)


def test_a_bomb_of_unknown_size_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_FREE", 1 << 20)
    out = io.BytesIO()
    with pytest.raises(FetchError, match="unpacks to more than 1,048,576 bytes: not unpacked further"):
        archive.copy(io.BytesIO(bytes(64 << 20)), out, "a.zip: rows", 100, None, None)
    assert out.tell() <= 1 << 20
