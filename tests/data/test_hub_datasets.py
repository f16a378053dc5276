"""Hub ids in data.datasets, against a hub of a few lines on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.config.schema import Config, DatasetConfig
from kit19_ray.data import hub_datasets, own_datasets
from kit19_ray.errors import SourceError
from kit19_ray.preflight import plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = b'{"instruction": "\xed\x95\x9c", "output": "\xea\xb8\x80"}\n'
FILES = {"data/train.jsonl": ROWS * 3, "data/test.jsonl": ROWS, "README.md": b"# x", "dataset_infos.json": b"{}"}


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks for a dataset's list of files, and for each of them."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/me/talk"):
            siblings = [{"rfilename": name} for name in FILES]
            self._answer(json.dumps({"id": "me/talk", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/api/datasets/me/gated"):
            self._refuse(403, "GatedRepo")
        elif path.startswith(f"/datasets/me/talk/resolve/{COMMIT}/"):
            self._answer(FILES[path.split(COMMIT + "/")[1]])
        else:
            self._refuse(404, "RepoNotFound")

    do_HEAD = do_GET

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, code: int, kind: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", kind)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def config(root: Path, **entry: Any) -> Config:
    own = {"path": "me/talk", "format": "alpaca", **entry}
    return Config.model_validate({"root": f"file://{root}", "data": {"tasks": [], "datasets": [own]}})


def located(made: Config) -> list[str]:
    return [file.path for file in own_datasets.locate(made.data.datasets[0], made.root)]


def test_its_files_are_copied_once_and_of_its_split(hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(tmp_path)
    with pytest.raises(SourceError, match="not copied from the hub yet"):
        located(made)
    hub_datasets.fetch(made)
    folder = tmp_path / "sources" / "hub" / "me" / "talk" / "main"
    assert (folder / "data" / "train.jsonl").read_bytes() == FILES["data/train.jsonl"]
    assert json.loads((folder / hub_datasets.MARKER).read_text()) == {
        "commit": COMMIT, "files": ["data/test.jsonl", "data/train.jsonl"]
    }  # fmt: skip
    assert located(made) == ["data/train.jsonl"]  # a hub's test split is not trained on unasked
    assert located(config(tmp_path, split="test")) == ["data/test.jsonl"]
    with pytest.raises(SourceError, match=r"(?s)no file of the split 'dev'.*data/test.jsonl, data/train.jsonl"):
        located(config(tmp_path, split="dev"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub_datasets.fetch(made)  # nothing is asked again


def test_a_plan_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    data = plan.make(config(tmp_path)).stages[0]
    assert data.notes == ["me/talk: copied from the hub when the build begins"] and not data.missing


@pytest.mark.parametrize(
    ("path", "said"), [("me/gated", "is gated.*HF_TOKEN"), ("me/nothing", "no file or folder here, and no dataset")]
)
def test_what_the_hub_refuses(path: str, said: str, hub: None, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"(?s){path}.*{said}"):
        hub_datasets.fetch(config(tmp_path, path=path))


def test_without_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"(?s)me/talk: the hub cannot be reached.*give its folder as the path"):
        hub_datasets.fetch(config(tmp_path))


def test_parquet_is_taken_before_what_it_was_made_of() -> None:
    assert hub_datasets.readable(["a.json", "data/train-0.parquet", "dataset_infos.json", ".x/b.parquet"]) == [
        "data/train-0.parquet"
    ]
    assert hub_datasets.of_split(["data/training.csv", "train/a.csv", "x_train.csv"], "train") == [
        "train/a.csv", "x_train.csv"
    ]  # fmt: skip


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me" / "talk").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not hub_datasets.is_hub_id(DatasetConfig(path="me/talk", format="text"))
