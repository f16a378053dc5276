"""One writer a prefix: waits for a live one, takes over from a dead one, notices that it was taken for dead."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kit19_ray.errors import StorageError
from kit19_ray.io import lease, storage


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def prefix(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    root = str(request.getfixturevalue("s3_root")) if request.param == "s3" else f"file://{tmp_path}/운영 #1"
    return storage.join(root, "data-x")


def test_the_second_waits_until_the_first_is_done(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not read from capsys in a loop: what a thread prints between its read and its clearing is lost for ever.
    order: list[str] = []
    said: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(lease, "say", said.put)

    def second() -> None:
        with lease.held(prefix, "data"):
            order.append("second")

    with lease.held(prefix, "data") as first:
        waiting = threading.Thread(target=second)
        waiting.start()
        assert "waiting for it" in said.get(timeout=60)
        first.require()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert storage.list_files(storage.join(prefix.rpartition("/")[0], "leases")) == []


def test_a_run_that_was_killed_keeps_nobody_waiting(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import os,sys\nfrom kit19_ray.io import lease\nwith lease.held(sys.argv[1], 'data'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, prefix]).returncode == 9
    with lease.held(prefix, "data") as held:
        held.require()
    assert "waiting" not in capsys.readouterr().err


def test_a_silent_holder_elsewhere_is_taken_for_dead(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SILENT_SECONDS", 0.3)
    other = {"machine": ["elsewhere"], "host": "elsewhere", "pid": 1, "started": "1", "token": "t", "beat": 3}
    storage.write_text(lease._where(prefix), json.dumps(other))
    with lease.held(prefix, "data") as held:
        held.require()


def test_half_a_lease_is_nobodys_in_the_end(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SILENT_SECONDS", 0.3)
    storage.write_text(lease._where(prefix), "[")
    with lease.held(prefix, "data") as held:
        held.require()


def test_who_was_taken_for_dead_is_told(prefix: str) -> None:
    with lease.held(prefix, "data") as held:
        storage.write_text(lease._where(prefix), json.dumps({"token": "another"}))
        assert held.lost.wait(30)
        with pytest.raises(StorageError, match="took this one for dead"):
            held.require()
    assert storage.exists(lease._where(prefix))  # the other's lease stays


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    """In the milliseconds between a lease's bytes and its name."""
    (tmp_path / "leases").mkdir()
    left, new = (tmp_path / "leases" / f".data-{name}.json.0a1b2c3d.partial" for name in ("old", "new"))
    for file in (left, new):
        file.write_text("{")
    os.utime(left, (1_000_000_000, 1_000_000_000))
    with lease.held(f"file://{tmp_path}/data-x", "data"):
        assert sorted(p.name for p in (tmp_path / "leases").iterdir()) == [new.name, "data-x.json"]
