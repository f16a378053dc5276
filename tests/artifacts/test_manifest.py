"""The commit marker: what it lists, what it notices, and that it is on the disk last."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.errors import StorageError
from kit19_ray.io import storage


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def prefix(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    root = str(request.getfixturevalue("s3_root")) if request.param == "s3" else f"file://{tmp_path}/runs"
    uri = storage.join(root, "data-x")
    storage.write_bytes(storage.join(uri, "train", "shard"), b"rows")
    storage.write_bytes(storage.join(uri, "README.md"), b"card")
    return uri


def test_every_file_is_listed_with_size_and_hash(prefix: str) -> None:
    storage.write_bytes(storage.join(prefix, "checkpoint_1", "state"), b"s")
    manifest.commit(prefix, {"stage": "data"}, without=("checkpoint_",))
    loaded = manifest.require(prefix, "data")
    assert loaded["listing"] == {
        "README.md": {"bytes": 4, "sha256": hashlib.sha256(b"card").hexdigest()},
        "train/shard": {"bytes": 4, "sha256": hashlib.sha256(b"rows").hexdigest()},
    }
    assert manifest.hashes(loaded, "train") == {"shard": hashlib.sha256(b"rows").hexdigest()}


def test_a_prefix_that_lost_a_file_is_not_finished(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    manifest.commit(prefix, {"stage": "data"})
    assert manifest.finished(prefix, "data") is not None
    storage.delete(storage.join(prefix, "train"))
    storage.write_bytes(storage.join(prefix, "README.md"), b"longer")
    assert manifest.finished(prefix, "data") is None
    said = capsys.readouterr().err
    assert "train/shard is not there" in said and "README.md has 6 bytes of 4" in said
    assert manifest.read(prefix) is None


def test_what_was_deleted_before_the_marker_is_noticed(prefix: str) -> None:
    with pytest.raises(StorageError, match="train/gone was written and is gone"):
        manifest.commit(prefix, {"stage": "data"}, known={"train/gone": "0" * 64})
    assert manifest.read(prefix) is None


def test_hashes_that_are_known_are_not_made_again(prefix: str) -> None:
    manifest.commit(prefix, {"stage": "data"}, known={"README.md": "f" * 64})
    assert manifest.require(prefix, "data")["listing"]["README.md"]["sha256"] == "f" * 64


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "[" * 100_000])
def test_what_is_no_manifest_is_said_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_text(text)
    with pytest.raises(StorageError, match="manifest") as told:
        manifest.read(f"file://{tmp_path}")
    assert len(told.value.message) < 500


def test_bytes_are_on_the_disk_before_the_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    real_sync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        calls.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))
        real_sync(handle)

    def replace(source: str, target: str) -> None:
        calls.append(("rename", os.path.basename(target)))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    uri = f"file://{tmp_path}/data-x"
    storage.write_bytes(storage.join(uri, "shard"), b"rows")
    manifest.commit(uri, {"stage": "data"})
    kinds = [kind for kind, _ in calls]
    assert kinds == ["fsync", "rename", "fsync"] * 2  # file, its name, the folder; then the marker
    assert [name for kind, name in calls if kind == "rename"] == ["shard", "manifest.json"]
    assert calls[0][1].startswith(".shard.") and calls[2][1] == calls[5][1] == "data-x"
