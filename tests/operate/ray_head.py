"""A Ray head for the tests of `kit19 submit`, with token authentication, and a line to it that can be cut."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

REPO = Path(__file__).parents[2]
TOKEN = "kit19-test-token-kit19-test-token"
# Not `ray start --block`, which ends everything when the dashboard ends.
_HEAD = """
import sys, time, ray
ray.init(num_cpus=2, include_dashboard=True, dashboard_port=int(sys.argv[2]), _temp_dir=sys.argv[1])
time.sleep(3600)
"""


def free_ports(number: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def environment() -> dict[str, str]:
    """Of a user of the head, and of the head itself."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") or name == "RAY_TMPDIR"}
    return mine | {
        "PYTHONPATH": str(REPO),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@dataclass
class Head:
    """A head in a process of its own."""

    port: int = 0
    folder: str = ""
    _process: Any = None
    _dashboard: Any = None
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        [self.port] = free_ports(1)
        # A socket's path is at most 107 characters: no folder of pytest's.
        self.folder = tempfile.mkdtemp(prefix="kit19-", dir=os.environ.get("RAY_TMPDIR"))
        command = [sys.executable, "-c", _HEAD, self.folder, str(self.port)]
        with Path(self.folder, "head.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment() | {"RAY_AUTH_MODE": "token"}, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def _wait(self) -> None:
        limit = time.monotonic() + 90
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.address}/api/jobs/", headers=self.headers, timeout=5).status_code == 200:
                    return
            assert self._process.poll() is None and time.monotonic() < limit, Path(self.folder, "head.log").read_text(
                errors="replace"
            )[-2000:]
            time.sleep(0.3)

    def stop(self) -> None:
        """Ends the head and everything it started."""
        started = psutil.Process(self._process.pid).children(recursive=True)
        if self._dashboard is not None:
            started += psutil.Process(self._dashboard.pid).children(recursive=True)
        self._process.kill()  # a head that is asked to end drains itself first, for 15 seconds
        self._process.wait(10)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._dashboard is not None:
            self._dashboard.kill()
            self._dashboard.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def restart_dashboard(self, pause: float) -> None:
        """Kills the dashboard's process and starts it again with its own command after `pause` seconds."""
        found = [p for p in psutil.Process(self._process.pid).children(recursive=True) if _is_dashboard(p)]
        assert len(found) == 1, found
        command, cwd, variables = found[0].cmdline(), found[0].cwd(), found[0].environ()
        below = found[0].children(recursive=True)
        for process in [*found, *below]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(pause)
        with Path(self.folder, "dashboard.log").open("ab") as log:
            self._dashboard = subprocess.Popen(
                command,
                cwd=cwd,
                env=variables,
                stdout=log,
                stderr=log,
                process_group=0 if sys.version_info > (3, 11) else None,
            )

    def job(self, entrypoint: str, name: str) -> None:
        """Submits a job that is none of kit19's verbs, to see how its end is told."""
        body = {"entrypoint": entrypoint, "submission_id": name}
        httpx.post(f"{self.address}/api/jobs/", json=body, headers=self.headers, timeout=60).raise_for_status()

    def status(self, name: str) -> str:
        answer = httpx.get(f"{self.address}/api/jobs/{name}", headers=self.headers, timeout=30).raise_for_status()
        return str(answer.json()["status"])


def _is_dashboard(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return any(word.endswith("dashboard/dashboard.py") for word in process.cmdline())
    return False


class Line:
    """A TCP line to `port` on loopback that can be cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        [self.port] = free_ports(1)
        self.address = f"http://127.0.0.1:{self.port}"
        self._listener: socket.socket | None = None
        self.restore()

    def cut(self) -> None:
        """Closes every connection and refuses new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            sockets, self._open = self._open, []
        for one in [listener, *sockets]:
            if one is not None:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def restore(self) -> None:
        """Takes connections again."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
