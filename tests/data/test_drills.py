"""What may go wrong while data are built: whole builds in processes of their own, against one that nobody touched.

`KIT19_LONG=1 KIT19_DRILLS=docs/explanation/drills.md pytest tests/data/test_drills.py` runs all of them, each kill
twenty times, and writes the table of outcomes."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from kit19_ray.io import storage
from kit19_ray.sources.files import SAMPLES
from tests import drill_tables
from tests.data.builds import AT_WORK, Started, differences, files, finished
from tests.misbehaving_s3 import Misbehaving, misbehaving_s3

LONG = bool(os.environ.get("KIT19_LONG"))
KILLS = 20 if LONG else 2
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    # Ray's own, of the nodes that a drill starts in this process (Ray 2.60).
    pytest.mark.filterwarnings("ignore:Exception ignored in.*socket.socket:pytest.PytestUnraisableExceptionWarning"),
]
dear = pytest.mark.skipif(not LONG, reason="a minute or more of builds: KIT19_LONG=1")
SAME = "the same bytes"


@dataclass(frozen=True)
class Untouched:
    """What a build leaves that nobody disturbed, and the seconds it was at work."""

    files: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Untouched:
    folder = tmp_path_factory.mktemp("untouched")
    build = Started(folder / "root", folder / "log")
    build.until(AT_WORK)
    begun = time.monotonic()
    build.ends()
    return Untouched(files(folder / "root"), time.monotonic() - begun)


@pytest.fixture
def ends(untouched: Untouched) -> Callable[[str, str, str], None]:
    """Puts the drill's outcome into the table: its name, what is done, how it ended."""
    begun = time.monotonic()
    return lambda drill, done, outcome: drill_tables.record(
        "A data build", drill, done, outcome, time.monotonic() - begun
    )


@pytest.fixture
def server(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Misbehaving]:
    """What stands between the build and the bucket of `s3_root`."""
    with misbehaving_s3() as (app, address):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield app


@pytest.mark.parametrize("store", ["file", pytest.param("s3", marks=[dear, pytest.mark.s3])])
def test_killed_at_random_moments(
    store: str, untouched: Untouched, tmp_path: Path, request: pytest.FixtureRequest, ends: Callable[..., None]
) -> None:
    """A build that ends before it is killed has the right bytes too; the next one begins anew then."""
    below = f"{request.getfixturevalue('s3_root')}/killed" if store == "s3" else f"{tmp_path}/killed"
    moments, roots, killed = random.Random(store), itertools.count(), 0
    root = f"{below}-{next(roots)}"
    while killed < KILLS:
        build = Started(root, tmp_path / "log")
        build.until(AT_WORK)
        if build.over_within(moments.uniform(0, untouched.seconds)):
            build.ends()
            assert differences(root, untouched.files) == []
            root = f"{below}-{next(roots)}"
        else:
            build.kill()
            killed += 1
    Started(root, tmp_path / "log").ends()
    assert differences(root, untouched.files) == []
    ends(
        f"killed, on {store}://",
        f"SIGKILL of the build and all it started, at {KILLS} random moments; then once more",
        SAME,
    )


def test_two_builds_on_one_root(untouched: Untouched, tmp_path: Path, ends: Callable[..., None]) -> None:
    builds = [Started(tmp_path / "root", tmp_path / f"log-{number}") for number in range(2)]
    said = [build.ends() for build in builds]
    assert differences(tmp_path / "root", untouched.files) == []
    assert any("waiting for it" in one for one in said) and any("is built already" in one for one in said), said
    ends("two at once", "the same build is started twice at the same moment", f"{SAME}; one waits for the other")


@dear
@pytest.mark.s3
def test_s3_fails_at_first(
    server: Misbehaving, s3_root: str, untouched: Untouched, tmp_path: Path, ends: Callable[..., None]
) -> None:
    server.how, server.times = "SlowDown InternalError reset lost cut", 2
    Started(s3_root, tmp_path / "log").ends()
    server.times = 0
    assert differences(s3_root, untouched.files) == []
    ends(
        "S3 fails",
        "the first two tries of every request: 503, 500, connection reset before or after the work was done, half a "
        "body",
        SAME,
    )


class Rotation:
    """S3 takes one key, of a credentials file; another takes its place when the third request of a kind arrives."""

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._seen: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._number, self._since = 0, 0.0
        self.rotate()

    def rotate(self) -> None:
        self._number, self._since = self._number + 1, time.monotonic()
        text = f"[default]\naws_access_key_id = KEY{self._number}\naws_secret_access_key = secret{self._number}\n"
        self._file.write_text(text, encoding="utf-8")

    def __call__(self, environ: dict[str, Any]) -> str | None:
        kind = environ["REQUEST_METHOD"] + " list" * ("list-type" in environ["QUERY_STRING"])
        with self._lock:
            self._seen[kind] += 1
            if self._seen[kind] >= 3 and not self.refused[kind] and time.monotonic() - self._since > 1:
                self.rotate()
            if f"Credential=KEY{self._number}/" in environ["HTTP_AUTHORIZATION"]:
                return None
            self.refused[kind] += 1
            return "ExpiredToken"


@dear
@pytest.mark.s3
def test_credentials_are_rotated(
    server: Misbehaving,
    s3_root: str,
    untouched: Untouched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: Callable[..., None],
) -> None:
    server.asked = rotation = Rotation(tmp_path / "credentials")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    Started(s3_root, tmp_path / "log").ends()
    assert rotation.refused.keys() >= {"GET", "GET list", "HEAD", "PUT", "DELETE"}
    assert differences(s3_root, untouched.files) == []
    ends(
        "credentials rotated",
        "another key takes the place of the one in force, which gets ExpiredToken, at a GET, a listing, a HEAD, a PUT "
        "and a DELETE",
        SAME,
    )


@pytest.mark.s3
@pytest.mark.parametrize(
    ("method", "reads", "when"),
    [
        ("GET", 0, "while it is hashed"),
        pytest.param("HEAD", 1, "after it was hashed", marks=dear),
        pytest.param("GET", 1, "while its rows are read", marks=dear),
    ],
)
def test_a_source_is_replaced(
    method: str, reads: int, when: str, server: Misbehaving, tmp_path: Path, ends: Callable[..., None]
) -> None:
    file, seen = "s3://kit19/sources/nsmc/ratings_train.txt", Counter[str]()
    storage.upload_dir(SAMPLES, "s3://kit19/sources")
    other = storage.read_bytes(file).replace(b"1\n", b"0\n")

    def asked(environ: dict[str, Any]) -> None:
        if environ["PATH_INFO"] == file.removeprefix("s3:/") and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            if environ["REQUEST_METHOD"] == method and seen["GET"] == reads and not seen["replaced"]:
                seen["replaced"] += 1
                storage.write_bytes(file, other)
            seen[environ["REQUEST_METHOD"]] += 1

    server.asked = asked
    told = Started(tmp_path / "root", tmp_path / "log", "data.sources=s3://kit19/sources").refused(file)
    assert seen["replaced"] and ("was replaced" in told or "was changed" in told), told
    assert finished(tmp_path / "root") == []
    ends(f"source replaced {when}", "another object takes the place of a source on s3://", "one message names it")


@dear
def test_the_disk_is_full(untouched: Untouched, tmp_path: Path, ends: Callable[..., None]) -> None:
    root, blocks = tmp_path / "disk", sum(-(-len(data) // 4096) for data in untouched.files.values())

    def mount(share: float, *options: str) -> None:
        size = f"size={int(share * blocks) * 4096}"
        command = ["mount", "-t", "tmpfs", "-o", ",".join([size, *options]), "tmpfs", str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a disk of a few KB needs the right to mount one: {done.stderr.strip()}")

    root.mkdir()
    mount(0.1)
    try:
        for share in (0.1, 0.4, 0.8):
            mount(share, "remount")
            Started(root, tmp_path / "log").refused(str(root), "No space left on device")
            assert finished(root) == []
        mount(20, "remount")
        Started(root, tmp_path / "log").ends()
        assert differences(root, untouched.files) == []
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)
    ends(
        "disk full",
        "the root's file system holds 10 %, 40 % and 80 % of the files; then more",
        f"each time one message names the place; then {SAME}",
    )


@dear
def test_a_node_is_lost(untouched: Untouched, tmp_path: Path, ends: Callable[..., None]) -> None:
    from ray.cluster_utils import Cluster

    def works(node: Any, title: str) -> bool:
        """Whether the node runs a task whose name begins so."""
        for worker in psutil.Process(node.all_processes["raylet"][0].process.pid).children():
            try:
                if worker.cmdline()[0].startswith(f"ray::{title}"):
                    return True
            except (psutil.Error, IndexError):
                continue
        return False

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = {title: cluster.add_node(num_cpus=1) for title in ("MapBatches", "data: ")}
        build = Started(tmp_path / "root", tmp_path / "log", RAY_ADDRESS=cluster.address)
        for title, node in nodes.items():
            build.until(lambda node=node, title=title: works(node, title))
            cluster.remove_node(node, allow_graceful=False)
        lost = build.said()
        cluster.add_node(num_cpus=1)
        build.ends()
    finally:
        cluster.shutdown()
    assert "training examples in" not in lost and differences(tmp_path / "root", untouched.files) == []
    ends(
        "nodes lost",
        "of two nodes one gets SIGKILL while it checks rows, later the other while it runs a task; a new one comes",
        SAME,
    )


def test_a_task_has_no_memory(untouched: Untouched, tmp_path: Path, ends: Callable[..., None]) -> None:
    """Ray's monitor takes the node for full whatever it runs; the records are there, so the first step is a task."""
    for name, data in untouched.files.items():
        if name.startswith("tasks/index-") or "/records-" in name:
            storage.write_bytes(f"{tmp_path}/root/{name}", data)
    full = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "20"}
    told = Started(tmp_path / "root", tmp_path / "log", **full).refused("ran out of memory in its step 'near")
    assert "tried again in vain" in told and finished(tmp_path / "root") == []
    shutil.rmtree(tmp_path / "root")
    ends(
        "out of memory",
        "Ray kills a task for its node's memory each time it is tried",
        "after a few tries one message names the task",
    )
