"""One download on a node, whoever asks; killed copies are swept; the limit spares what is in use."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit19_ray.errors import StorageError
from kit19_ray.io import node_cache, s3_objects, storage


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KIT19_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_ASK = """
import sys
from kit19_ray.io import node_cache, storage
fetched = []
real = storage.copy_out
storage.copy_out = lambda uri, local: (fetched.append(uri), real(uri, local))
print(node_cache.local_dir(sys.argv[1]))
print(len(fetched))
"""


@pytest.mark.s3
def test_several_processes_download_once(s3_root: str, cache: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        storage.write_bytes(storage.join(s3_root, "m", name), name.encode() * 1000)
    command = [sys.executable, "-c", _ASK, storage.join(s3_root, "m")]
    asked = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate()[0].split() for process in asked]
    assert [process.returncode for process in asked] == [0] * 4
    assert len({folder for folder, _ in answers}) == 1
    assert sum(int(fetched) for _, fetched in answers) == 2  # two files, by one of the four


@pytest.mark.s3
def test_what_killed_downloads_left_is_swept(s3_root: str, cache: Path) -> None:
    storage.write_bytes(storage.join(s3_root, "m", "x"), b"x")
    left = cache / "copies" / ".0123456789abcdef.deadbeef.partial"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"h")
    node_cache.local_dir(storage.join(s3_root, "m"))
    assert not left.exists() and not list(cache.rglob("*.partial"))


@pytest.mark.s3
def test_copies_that_nobody_uses_go_when_there_are_too_many(
    s3_root: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIT19_CACHE_GB", "0.000001")  # 1,000 bytes
    for name in "abc":
        storage.write_bytes(storage.join(s3_root, name, "x"), name.encode() * 900)
    first = node_cache.local_dir(storage.join(s3_root, "a"))
    second = node_cache.local_dir(storage.join(s3_root, "b"))
    assert first.exists() and second.exists()  # this process uses both
    for handle in node_cache._used.values():
        os.close(handle)
    node_cache._used.clear()  # as when it has ended
    third = node_cache.local_dir(storage.join(s3_root, "c"))
    assert third.exists() and not first.exists()  # the one that was used longest ago
    monkeypatch.setenv("KIT19_CACHE_GB", "plenty")
    storage.write_bytes(storage.join(s3_root, "d", "x"), b"d")
    with pytest.raises(StorageError, match="KIT19_CACHE_GB='plenty' is not a number"):
        node_cache.local_dir(storage.join(s3_root, "d"))


def test_a_flipped_byte_is_noticed_on_the_local_disk_too(tmp_path: Path, cache: Path) -> None:
    shard = tmp_path / "shard"
    shard.write_bytes(b"rows")
    assert node_cache.local_file(f"file://{shard}", _sha256(b"rows")) == shard
    shard.write_bytes(b"roWs")
    with pytest.raises(StorageError, match="was altered"):
        node_cache.local_file(f"file://{shard}", _sha256(b"rows"))
    with pytest.raises(StorageError, match="though its manifest lists it"):
        node_cache.local_dir(f"file://{tmp_path}", {"gone": _sha256(b"")})


def test_a_file_is_hashed_once_while_it_stays_the_same(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = tmp_path / "shard"
    shard.write_bytes(b"rows")
    node_cache.local_file(f"file://{shard}", _sha256(b"rows"))
    monkeypatch.setattr(node_cache, "sha256_stream", lambda file: pytest.fail("hashed again"))
    node_cache.local_file(f"file://{shard}", _sha256(b"rows"))


@pytest.mark.s3
def test_an_altered_copy_is_refused_and_fetched_again_when_asked_again(s3_root: str, cache: Path) -> None:
    uri = storage.join(s3_root, "shard")
    storage.write_bytes(uri, b"rows")
    copy = node_cache.local_file(uri, _sha256(b"rows"))
    copy.write_bytes(b"roWs")
    with pytest.raises(StorageError, match="was altered"):
        node_cache.local_file(uri, _sha256(b"rows"))
    assert node_cache.local_file(uri, _sha256(b"rows")).read_bytes() == b"rows"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KIT19_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="cache folder cannot be written.*\n.*KIT19_CACHE names another"):
        node_cache.folder()


@pytest.mark.s3
def test_a_full_disk_is_named_and_leaves_nothing(s3_root: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(storage.join(s3_root, "m", "x"), b"x")

    def full(uri: str, local: Path) -> None:
        local.write_bytes(b"h")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "copy_out", full)
    with pytest.raises(StorageError, match="No space left on device\nKIT19_CACHE names another"):
        node_cache.local_dir(storage.join(s3_root, "m"))
    assert not list(cache.rglob("x"))


@pytest.mark.s3
def test_an_object_knows_its_hash(s3_root: str) -> None:
    storage.write_bytes(storage.join(s3_root, "x"), b"rows")
    found = s3_objects.head("kit19/runs/x")
    assert found is not None and found.sha256 == _sha256(b"rows")
    assert json.dumps(found.size) == "4"


def test_processes_of_a_node_share_a_copy_and_none_waits_for_another_to_end(tmp_path: Path) -> None:
    """Each holds the copy's lock for as long as it lives: two that use it at once must both get it."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom kit19_ray.io import node_cache\n"
        "def fetch(path):\n    path.mkdir(); (path / 'x').write_text('x')\n"
        "print(node_cache._copy('k', fetch), flush=True)\nsys.stdin.read()\n"
    )
    environ = {**os.environ, "KIT19_CACHE": str(tmp_path)}
    held = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        for _ in range(3)
    ]
    try:
        assert all(process.stdout is not None for process in held)
        found = {process.stdout.readline() for process in held if process.stdout is not None}
        assert found == {f"{tmp_path}/copies/k\n".encode()}
    finally:
        for process in held:
            process.communicate(timeout=60)
