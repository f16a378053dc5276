"""What a Ray of this machine's own finds before it starts."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit19_ray.errors import UserError
from kit19_ray.utils import local_ray


def test_few_open_files_are_more_where_they_may_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[int, int]] = []
    limits = {"now": (256, 65536)}
    monkeypatch.setattr(local_ray.resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(local_ray.resource, "setrlimit", lambda _, pair: asked.append(pair))
    local_ray._raise_file_limit()
    assert asked == [(4096, 65536)] and not capsys.readouterr().err
    limits["now"] = (256, 256)
    local_ray._raise_file_limit()
    assert "only 256 files may be open" in capsys.readouterr().err


def test_a_folder_without_room_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 << 20))
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match="has 3 MB free") as caught:
        local_ray.prepare()
    assert str(tmp_path) in str(caught.value) and "RAY_TMPDIR" in str(caught.value.hint)


def test_a_home_that_cannot_be_written_needs_a_token_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    os.environ["HOME"] = str(tmp_path)
    local_ray.prepare()
    assert "RAY_AUTH_TOKEN" not in os.environ, "Ray writes its own into ~/.ray"
    os.environ["HOME"] = "/proc/1/nowhere"
    local_ray.prepare()
    made = os.environ["RAY_AUTH_TOKEN"]
    assert len(made) == 64
    local_ray.prepare()
    assert os.environ["RAY_AUTH_TOKEN"] == made
