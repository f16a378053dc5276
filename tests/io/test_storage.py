from __future__ import annotations

import os
from pathlib import Path

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.errors import StorageError
from kit19_ray.io import node_cache, s3, storage


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(request.getfixturevalue("s3_root")) if request.param == "s3" else f"file://{tmp_path}/운영 기록"


def test_write_read_list_delete(root: str, tmp_path: Path) -> None:
    storage.write_text(storage.join(root, "b", "둘.txt"), "두 번째")
    storage.write_bytes(storage.join(root, "a.bin"), b"\x00\x01")
    assert storage.list_files(root) == [storage.FileInfo("a.bin", 2), storage.FileInfo("b/둘.txt", 10)]
    assert storage.read_text(storage.join(root, "b/둘.txt")) == "두 번째"
    assert storage.exists(root) and not storage.exists(storage.join(root, "c"))
    storage.download_dir(root, tmp_path / "copy")
    assert (tmp_path / "copy" / "a.bin").read_bytes() == b"\x00\x01"
    storage.upload_dir(tmp_path / "copy", storage.join(root, "again"))
    assert len(storage.list_files(storage.join(root, "again"))) == 2
    storage.delete(root)
    assert storage.list_files(root) == []
    storage.delete(root)


def test_an_interrupted_write_leaves_nothing(root: str) -> None:
    def half() -> None:
        with storage.open_output(storage.join(root, "x")) as file:
            file.write(b"half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half()
    assert storage.list_files(root) == []


def test_manifest_is_the_commit_marker(root: str) -> None:
    uri = manifest.stage_uri(root, "data", {"a": 1})
    storage.write_text(storage.join(uri, "shard"), "bytes of an unfinished build")
    assert manifest.read(uri) is None
    with pytest.raises(StorageError, match="never finished"):
        manifest.require(uri, "data")
    manifest.commit(uri, {"stage": "data", "이름": "값"})
    assert manifest.require(uri, "data")["이름"] == "값"


@pytest.mark.s3
def test_local_copies_of_a_remote_folder_follow_its_content(
    s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT19_CACHE", str(tmp_path / "cache"))
    storage.write_text(storage.join(s3_root, "m", "config.json"), "{}")
    first = node_cache.local_dir(storage.join(s3_root, "m"))
    assert node_cache.local_dir(storage.join(s3_root, "m")) == first
    storage.write_text(storage.join(s3_root, "m", "config.json"), "{ }")
    second = node_cache.local_dir(storage.join(s3_root, "m"))
    assert second != first and (second / "config.json").read_text() == "{ }"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://b/x", "is not one of file, s3"),
        ("s3:///x", "s3://bucket/prefix"),
        ("file://host/x", "three slashes"),
    ],
)
def test_bad_uris(uri: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        storage.normalise(uri)


@pytest.mark.s3
def test_an_unreachable_endpoint_and_a_missing_bucket_are_named(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="s3://no-such-bucket/x"):
        storage.write_text("s3://no-such-bucket/x", "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="127.0.0.1:9"):
        storage.read_text(storage.join(s3_root, "x"))


def test_list_dirs_names_the_folders_directly_below(tmp_path: Path) -> None:
    for name in ("b/deep/file", "a/file", "file"):
        storage.write_text(f"file://{tmp_path}/{name}", "")
    assert storage.list_dirs(f"file://{tmp_path}") == ["a", "b"]
    assert storage.list_dirs(f"file://{tmp_path}/none") == []


@pytest.mark.s3
def test_list_dirs_and_credentials_on_s3(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_text(f"{s3_root}/b/deep/file", "")
    storage.write_text(f"{s3_root}/file", "")
    assert storage.list_dirs(s3_root) == ["b"]
    assert storage.list_dirs(f"{s3_root}/none") == []
    assert s3.has_credentials()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert not s3.has_credentials()


@pytest.mark.s3
def test_a_block_may_use_other_credentials_than_the_process(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_text(f"{s3_root}/a", "x")
    variables = {name: os.environ[name] for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with s3.override_credentials(variables):
        assert s3.endpoint() == variables["AWS_ENDPOINT_URL"] and storage.read_text(f"{s3_root}/a") == "x"
    assert s3.endpoint() == "http://127.0.0.1:1"
    with s3.override_credentials({}):
        assert s3.endpoint() is None
