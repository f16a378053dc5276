"""Ray that is not there, is another's, or does not come up: one message, and what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit19_ray.errors import TrainError, UserError
from kit19_ray.utils import machine, proxies, ray_session


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Something that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _dead_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://head:8265", "is a dashboard's address.*\n.*kit19 submit --address"),
        ("https://me:hunter2@head:8265/?token=s3cret", "https://head:8265/ is a dashboard's"),
        ("head", "an address is host:port"),
        ("127.0.0.1:{dead}", "nothing answers there .*\n.*unset it for a local one"),
        ("ray://127.0.0.1:{dead}", "nothing answers there"),
        ("127.0.0.1:99999", "nothing answers there"),
    ],
)
def test_an_address_without_a_cluster_is_named(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = address.format(dead=_dead_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=said) as told:
        ray_session._check_address(address)
    assert "hunter2" not in str(told.value) and "s3cret" not in str(told.value)


def test_a_server_that_is_no_ray_head_is_not_waited_for(silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "_ANSWER_SECONDS", 3.0)
    with pytest.raises(UserError, match="does not answer as a Ray cluster does\n.*8265 is the dashboard's"):
        ray_session._check_address(silent_server)


def test_what_the_check_says_is_passed_on(silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Traceback\nRuntimeError: Ray version mismatch: cluster has Ray version 2.1 but local Ray version is 2.60"
    done = subprocess.CompletedProcess([], 1, "", text)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(UserError, match="cluster has Ray version 2.1.*\n.*use the image"):
        ray_session._check_address(silent_server)


class _Ray:
    """`ray.init` that fails as told, then succeeds."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.calls = list(failures), 0

    def __call__(self, **_: Any) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


_SLOW = Exception("The current node timed out during startup. This could happen because some of the raylet failed")


def test_a_slow_start_is_tried_once_more(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    init = _Ray(_SLOW)
    monkeypatch.setattr(ray, "init", init)
    ray_session._start("local", 1, False)
    assert init.calls == 2 and "once more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "cpus", "told"),
    [("local", None, 3), ("local", 2, 2), ("head:6379", None, None), ("head:6379", 2, None)],
)
def test_a_local_cluster_has_the_cpus_that_count_here(
    address: str, cpus: int | None, told: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    asked: list[int | None] = []
    monkeypatch.setattr(ray, "init", lambda num_cpus, **_: asked.append(num_cpus))
    monkeypatch.setattr(machine, "cpus", lambda: 3)
    ray_session._start(address, cpus, False)
    assert asked == [told]


def test_what_a_slow_start_had_begun_is_ended() -> None:
    before = ray_session._children()
    left = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert ray_session._children() - before == {left.pid}
    ray_session._end(ray_session._children() - before)
    assert left.poll() is not None and left.pid not in ray_session._children()
    assert left.stdin is not None
    left.stdin.close()


@pytest.mark.parametrize(
    ("failures", "address", "said"),
    [
        ((_SLOW, _SLOW), "local", "could not be started on this machine: The current node timed out.*\n.*too busy"),
        ((OSError("AF_UNIX path length cannot exceed 107 bytes: /x"),), "local", "\n.*RAY_TMPDIR to a short folder"),
        ((PermissionError(13, "Permission denied", "/tmp/ray"),), "local", "\n.*it must be yours and have room"),
        ((RuntimeError("Version mismatch: The cluster: Python: 3.12 " + "x" * 900),), "head:6379", "\n.*use the image"),
        ((ConnectionError("Failed to connect"),), "head:6379", "RAY_ADDRESS=head:6379: Failed.*\n.*mend RAY_ADDRESS"),
    ],
)
def test_what_ray_says_is_one_message(
    failures: tuple[Exception, ...], address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(ray, "init", _Ray(*failures))
    with pytest.raises(UserError, match=said) as told:
        ray_session._start(address, 1, False)
    assert len(told.value.message) < 300


def test_a_temporary_folder_too_long_for_a_socket(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    code = (
        "import sys\nfrom kit19_ray.errors import UserError\nfrom kit19_ray.utils import ray_session\n"
        "try:\n    ray_session.connected(cpus=1).__enter__()\n"
        "except UserError as error:\n    print(error)\n    sys.exit(2)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"RAY_TMPDIR": str(long)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "RAY_TMPDIR to a short folder" in done.stdout) == (2, True), done.stderr


def test_word_of_a_cluster_that_is_gone_is_not_believed(
    tmp_path: Path, silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert ray_session._current_cluster() is None
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text(f"127.0.0.1:{_dead_port()}\n")
    assert ray_session._current_cluster() is None
    note.write_text(f"{silent_server}\n")
    assert ray_session._current_cluster() == silent_server


def test_loopback_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("all_proxy", raising=False)
    proxies.spare_loopback()
    assert "no_proxy" not in os.environ
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "internal,localhost")
    monkeypatch.setenv("NO_PROXY", "")
    proxies.spare_loopback()
    assert os.environ["no_proxy"] == "internal,localhost,127.0.0.1,::1"
    assert os.environ["NO_PROXY"] == "127.0.0.1,localhost,::1"


@pytest.mark.usefixtures("ray_cluster")
def test_a_local_cluster_is_heard_on_this_machine_only() -> None:
    listening = {
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.usefixtures("ray_cluster")
def test_what_a_cluster_must_hold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_session.require("train.workers", 2, 1, None, "lower it") is False
    with pytest.raises(TrainError, match=r"train.workers=3 need 3 CPUs, the Ray cluster has 2\nlower it"):
        ray_session.require("train.workers", 3, 1, None, "lower it", TrainError)
    with pytest.raises(UserError, match="need 1 GPUs, the Ray cluster has 0"):
        ray_session.require("train.workers", 1, 1, True, "lower it")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert ray_session.require("train.workers", 3, 1, None, "lower it") is False
    assert "waiting for it to grow" in capsys.readouterr().err
