"""Any name, on disk and on an S3 server: what was written is where it was said, and nothing else was touched."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit19_ray.artifacts import manifest
from kit19_ray.errors import StorageError
from kit19_ray.io import storage
from kit19_ray.report import stage as report_stage
from tests.io.test_uris import NAMES, refused

_BYTES = 255  # of a name, in every file system
# What cut, decoded or overwrote something before, so that chance need not find it again.
_KNOWN = ["runs", "runs#2", "runs?2", "runs%202", "runs 2", "운영", "운영", "a+b", "50%", "..."]
_PARTS = st.one_of(st.sampled_from(_KNOWN), NAMES).filter(lambda name: len(name.encode()) <= _BYTES)
_SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def _everything(base: str) -> dict[str, bytes]:
    return {info.path: storage.read_bytes(storage.join(base, info.path)) for info in storage.list_files(base)}


def _check(base: str, root: str, name: str) -> None:
    """Writes, reads, lists, commits and deletes below one root, beside neighbours that must stay as they are."""
    if refused(base, root, name):
        return
    uri = storage.join(base, root)
    path = storage.join(uri, name)
    neighbours = {storage.join(base, other, "keep"): other.encode() for other in _KNOWN if other != root}
    for place, data in neighbours.items():
        storage.write_bytes(place, data)
    before = _everything(base)
    storage.write_text(path, name)
    assert storage.read_text(path) == name and storage.exists(path) and not storage.is_dir(path)
    assert storage.size(path) == len(name.encode())
    assert storage.list_files(uri) == [storage.FileInfo(name, len(name.encode()))]
    assert root in storage.list_dirs(base)
    if name != manifest.NAME:
        manifest.commit(uri, {"stage": "data"})
        assert list(manifest.require(uri, "data")[manifest.LISTING]) == [name]
        assert manifest.finished(uri, "data") is not None
    storage.delete(uri)
    assert not storage.exists(uri) and _everything(base) == before
    for place in neighbours:
        storage.delete(place)


@_SLOW
@given(_PARTS, _PARTS)
def test_any_root_and_file_name_on_disk(root: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _check(f"file://{folder}", root, name)
        if (Path(folder) / root).is_dir():
            assert list((Path(folder) / root).iterdir()) == []


@pytest.mark.s3
@_SLOW
@given(_PARTS, _PARTS)
def test_any_root_and_file_name_on_s3(s3_root: str, root: str, name: str) -> None:
    _check(s3_root, root, name)
    assert storage.list_dirs(s3_root) == []  # no marker objects either


@pytest.mark.parametrize("out", ["report#v2", "report?v=2", "report%20v2", "보고서 2"])
def test_a_report_is_written_beside_the_file_whose_name_begins_like_its_own(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report").write_text("the user's own")
    monkeypatch.setattr(report_stage, "collect", lambda named, root: [])
    monkeypatch.setattr(report_stage.comparison, "compare", lambda runs: {"runs": []})
    monkeypatch.setattr(report_stage.charts, "draw", lambda runs, found: {"loss.png": b"png"})
    monkeypatch.setattr(report_stage.page, "markdown", lambda found, drawn: "# Report\n")
    uri, _ = report_stage.write(["x"], None, str(tmp_path / out))
    assert uri == f"file://{tmp_path}/{out}"
    assert sorted(p.name for p in (tmp_path / out).iterdir()) == ["loss.png", "report.html", "report.json", "report.md"]
    assert (tmp_path / "report").read_text() == "the user's own"


def test_a_manifest_of_another_stage_is_not_taken(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/exp #1"
    manifest.commit(uri, {"stage": "pool"})
    for take in (lambda: manifest.require(uri, "data"), lambda: manifest.finished(uri, "data")):
        with pytest.raises(StorageError, match="is that of 'pool', not of 'data'"):
            take()


def test_a_whole_bucket_and_the_whole_disk_are_never_deleted() -> None:
    for uri in ("file:///", "s3://bucket"):
        with pytest.raises(StorageError, match="is a whole"):
            storage.delete(uri)
        with pytest.raises(StorageError, match="is no file"):
            storage.write_text(uri, "")
