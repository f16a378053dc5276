"""An HTTP server on loopback that serves files and misbehaves as told, and a catalogue whose URLs lead to it."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.fetch.download import Patience

QUICK = Patience(attempts=5, first_seconds=0.01, longest_seconds=0.05, asked_seconds=5, silence_seconds=2)


@dataclass
class Seen:
    """One request as the server got it."""

    path: str
    range: str | None
    if_range: str | None
    time: float = field(default_factory=time.monotonic)


Answer = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """GET with ranges and ETags; `server.faults[path]` holds what to do instead, one fault a request."""

    protocol_version = "HTTP/1.1"
    server: Origin

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_GET(self) -> None:
        self.server.seen.append(Seen(self.path, self.headers["Range"], self.headers["If-Range"]))
        faults = self.server.faults.get(self.path, [])
        body = self.server.files.get(self.path)
        if faults:
            faults.pop(0)(self, body or b"")
        elif body is None:
            self.fail(404)
        else:
            self.give(body)

    def etag(self, body: bytes) -> str:
        return f'"{hashlib.md5(body).hexdigest()}"'

    def fail(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def head(self, code: int, length: int | None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def give(self, body: bytes, upto: int | None = None) -> None:
        """The body or the range asked for; `upto` is the file's byte after which the connection breaks."""
        start = 0
        asked = self.headers["Range"]
        if asked and self.server.ranges and self.headers["If-Range"] in (None, self.etag(body)):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.fail(416, Content_Range=f"bytes */{len(body)}")
                return
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.head(206, len(body) - start, ETag=self.etag(body), Content_Range=span)
        elif self.server.etags:
            self.head(200, len(body), ETag=self.etag(body))
        else:
            self.head(200, len(body))
        end = len(body) if upto is None else upto
        self.wfile.write(body[start:end])
        if upto is not None:
            self.cut()

    def cut(self) -> None:
        """Resets the connection, as a dying server does."""
        self.wfile.flush()
        time.sleep(0.05)  # so that what was sent is read before the reset discards it
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = self.rfile = open("/dev/null", "r+b", buffering=0)  # noqa: SIM115 - the base class closes it


class Origin(ThreadingHTTPServer):
    """Where the published files are."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Answer]] = {}
        self.seen: list[Seen] = []
        self.ranges = self.etags = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address  # a client that is killed breaks its connections; that is what is tested

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Origin()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def payload(size: int, seed: int = 0) -> bytes:
    """Bytes that repeat nowhere, so that a piece in the wrong place shows."""
    return b"".join(hashlib.sha256(f"{seed} {i}".encode()).digest() for i in range(size // 32 + 1))[:size]


def published(origin: Origin, path: str, body: bytes, **changes: object) -> dict[str, object]:
    """Serves `body` at `/path` and returns its entry for a sources file."""
    origin.files[f"/{path}"] = body
    entry: dict[str, object] = {
        "path": path,
        "split": "train",
        "url": origin.url(f"/{path}"),
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return {k: v for k, v in (entry | changes).items() if v is not None}


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Config]:
    """A config whose tasks have the sources given: `configured(root, mine=[file, ...], other=[...])`."""

    def makes(root: str | Path, *words: str, **sources: list[dict[str, object]]) -> Config:
        return loading.load(None, [f"root={root}", *task_words(tmp_path / "tasks", **sources), *words])

    return makes


def task_words(folder: Path, **sources: list[dict[str, object]]) -> list[str]:
    """Writes a task file for each source and returns the overrides that name them and nothing else."""
    folder.mkdir(exist_ok=True)
    for name, files in sources.items():
        task = {
            "category": "math",
            "description": "d",
            "source": {
                "title": name,
                "homepage": f"https://example.org/{name}",
                "licence": {
                    "name": f"Licence of {name}",
                    "url": "https://example.org/licence",
                    "commercial": False,
                    "derivatives": True,
                },
                "citation": "c",
                "reader": "delimited",
                "files": files,
            },
            "splits": ["train"],
            "fields": ["a"],
            "templates": [{"name": "t", "kind": "open", "instruction": "{{ a }}", "outputs": ["{{ a }}"]}],
            "metrics": ["chrf"],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return [
        f"data.tasks_dir={folder}",
        f"data.tasks=[{','.join(sources)}]",
        "evaluate.tasks=[]",
        "data.gates.decontaminate=false",
    ]
