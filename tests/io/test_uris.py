"""URIs: what is typed is what is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.errors import StorageError
from kit19_ray.io import uris

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..")
)


def refused(*parts: str) -> bool:
    """Whether a path of these parts has a character no URI can hold: a line break, or on S3 what XML has not."""
    broken = len("".join(parts).splitlines()) > 1 or re.search("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", "".join(parts))
    unlisted = parts[0].startswith("s3") and re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "".join(parts))
    if not (broken or unlisted):
        return False
    with pytest.raises(StorageError, match="cannot hold U"):
        uris.join(*parts)
    return True


@pytest.mark.parametrize("name", ["exp #1", "a?b=c", "50%25", "운영 기록", "운영", "~x", "a&b+c", "x:y", "'q'"])
def test_a_plain_path_is_a_file_uri_with_the_same_characters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uris.normalise(tmp_path / name) == f"file://{tmp_path}/{name}"
    monkeypatch.chdir(tmp_path)
    assert uris.normalise(name) == f"file://{tmp_path}/{name}"
    assert uris.normalise(f"s3://bucket/{name}/") == f"s3://bucket/{name}"
    assert uris.split(uris.join("s3://bucket", name, "x")) == ("s3", f"bucket/{name}/x")


def test_home_is_home_only_as_a_part_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/user")
    assert uris.normalise("~/runs") == "file:///home/user/runs"
    assert uris.normalise("file:///") == "file:///" and uris.join("file:///", "a") == "file:///a"


@given(NAMES, NAMES)
def test_any_name_is_itself_or_refused(first: str, second: str) -> None:
    for root, path in (("file:///runs", "/runs"), ("s3://bucket/runs", "bucket/runs")):
        if not refused(root, first, second):
            joined = uris.join(root, first, second)
            assert uris.split(joined)[1] == f"{path}/{first}/{second}"
            assert uris.normalise(joined) == joined and len(joined.splitlines()) == 1


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://b/x", "is not one of file, s3"),
        ("fil:///x", "did you mean 'file'"),
        ("s3:///x", "s3://bucket/prefix"),
        ("s3://b", "no name of a bucket"),
        ("s3://bu cket/x", "no name of a bucket"),
        ("s3://bucket/a//b", "cannot be part of an S3 key"),
        ("s3://bucket/a/../b", "cannot be part of an S3 key"),
        ("file://host/x", "three slashes"),
        ("file:///a\nb", "cannot hold U\\+000A"),
        ("s3://bucket/a\x01", "cannot hold U\\+0001"),
        ("file:///a\udcb0", "not UTF-8"),
        ("s3://bucket/" + "x" * 3000 + "\n", r"x{100}.*\.\.\."),
    ],
)
def test_bad_uris(uri: str, said: str) -> None:
    with pytest.raises(StorageError, match=said) as told:
        uris.normalise(uri)
    assert len(told.value.message) < 400 and "\n" not in told.value.message


@pytest.mark.parametrize("part", ["..", "a/../b", ".", "./a"])
def test_nothing_leads_out_of_a_prefix(part: str) -> None:
    with pytest.raises(StorageError, match="not `.` or `..`"):
        uris.join("file:///runs", part)


@pytest.mark.parametrize("uri", ["s3://AKIAKEY:hunter2@bucket/x", "s3://key:hunter2@bucket", "s3://bucket:hunter2/x"])
def test_a_key_in_an_s3_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StorageError, match="holds no key, secret or host") as told:
        uris.normalise(uri)
    assert "AKIAKEY" not in str(told.value) and not ("@" in uri and "hunter2" in str(told.value))
