"""An export on its way: to a folder, to S3, to a hub that is a stand-in of two calls."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.errors import StorageError, TrainError, UserError
from kit19_ray.io import storage
from kit19_ray.push import push

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"# card"}


def trained(root: str, **more: Any) -> str:
    run = f"{root}/train-x"
    for name, data in FILES.items():
        storage.write_bytes(f"{run}/export/{name}", data)
    manifest.commit(run, {"stage": "train", "export": "export", **more})
    return run


def test_to_a_folder_and_again(tmp_path: Path) -> None:
    run = trained(f"file://{tmp_path}")
    for _ in range(2):  # what is there already stays
        assert push(run, f"{tmp_path}/out") == f"file://{tmp_path}/out"
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == FILES
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds other files: notes\.txt"):
        push(run, f"{tmp_path}/out")


@pytest.mark.s3
def test_to_s3(s3_root: str, tmp_path: Path) -> None:
    assert push(trained(f"file://{tmp_path}"), f"{s3_root}/out") == f"{s3_root}/out"
    assert storage.read_bytes(f"{s3_root}/out/model.safetensors") == b"weights"


def test_a_file_that_was_altered_does_not_leave(tmp_path: Path) -> None:
    run = trained(f"file://{tmp_path}")
    (tmp_path / "train-x" / "export" / "model.safetensors").write_bytes(b"wEights")
    with pytest.raises(StorageError, match=r"model\.safetensors is not what was exported"):
        push(run, f"{tmp_path}/out")
    assert not (tmp_path / "out" / "config.json").exists()  # so nobody takes it for a model


def test_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    said: dict[str, Any] = {}

    class Api:
        def __init__(self, endpoint: str | None, token: str | None) -> None:
            said["token"] = token

        def create_repo(self, hub_id: str, private: bool, exist_ok: bool) -> None:
            said["private"] = private

        def upload_folder(
            self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str
        ) -> Any:
            if repo_id == "me/refused":
                raise PermissionError("403 Forbidden\nmore")
            said["files"] = {name: Path(folder_path, name).read_bytes() for name in allow_patterns}
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    (tmp_path / "token").write_text("hf_secret\n")
    run = trained(f"file://{tmp_path}")
    assert push(run, "me/model", token_file=f"{tmp_path}/token") == "https://hub/me/model/commit/1"
    assert said == {"token": "hf_secret", "private": True, "files": FILES}
    with pytest.raises(UserError, match=r"(?s)me/refused: the hub did not take it: 403 Forbidden.*HF_TOKEN"):
        push(run, "me/refused")


def test_what_cannot_be_pushed(tmp_path: Path) -> None:
    run = trained(f"file://{tmp_path}")
    with pytest.raises(TrainError, match="trained without adapters"):
        push(run, "me/model", adapter=True)
    with pytest.raises(UserError, match="neither a folder"):
        push(run, "model")
    with pytest.raises(StorageError, match=r"has no manifest\.json"):
        push(f"file://{tmp_path}/nothing", "me/model")
