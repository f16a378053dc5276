"""A small build on machines as they are: little shared memory, one CPU, few open files, no network, a dead proxy,
places that cannot be written, a memory limit. Each works, or says in one message what is missing.

Each is a real `kit19 data` in namespaces and limits of its own; what needs root, or a kernel that permits it, skips.
Opt-in (KIT19_LONG=1): nine builds take some five minutes on 2 cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(700),
    pytest.mark.skipif(not os.environ.get("KIT19_LONG"), reason="nine builds: KIT19_LONG=1"),
]
BUILD = [
    "data.sources=samples", "data.tasks=[nsmc]", "data.quota=20", "data.validation=2", "data.tokenizer.vocab_size=400",
    "data.seq_len=96", "data.prompt=plain", "data.gates.decontaminate=false",
]  # fmt: skip
CGROUP = Path("/sys/fs/cgroup")


def build(root: Path, *before: str, script: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`kit19 data` below `root`, behind the words of another command, after the lines of a shell script."""
    words = [sys.executable, "-m", "kit19_ray", "data", f"root={root}", *BUILD]
    shell = f'set -e\n{script}\nexec "$@"'
    known = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "KIT19_CACHE")}
    temporary = {"RAY_TMPDIR": known.get("RAY_TMPDIR", "/tmp"), "KIT19_CACHE": str(root / "cache")}
    return subprocess.run(
        [*before, "bash", "-c", shell, "bash", *words],
        env=known | temporary | environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def check(done: subprocess.CompletedProcess[str]) -> None:
    """It built, and said where on its last line."""
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("file:///") and "Traceback" not in done.stderr


def refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    """It ended with one message that names what is missing."""
    assert done.returncode == 2, f"{done.returncode}: {done.stderr[-3000:]}"
    assert said in done.stderr and "Traceback" not in done.stderr and "a fault of kit19-ray" not in done.stderr


@pytest.fixture
def unshare() -> list[str]:
    """Makes mounts of one's own, without the network where -n is added."""
    words = ["unshare", "-m"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*words, "-n", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("namespaces of one's own need root, or a kernel that lends them")
    return words


def test_little_shared_memory(tmp_path: Path, unshare: list[str]) -> None:
    check(build(tmp_path, *unshare, script="mount -t tmpfs -o size=16m tmpfs /dev/shm"))


def test_one_cpu(tmp_path: Path) -> None:
    if not shutil.which("taskset"):
        pytest.skip("there is no taskset")
    check(build(tmp_path, "taskset", "-c", str(min(os.sched_getaffinity(0)))))


def test_few_open_files(tmp_path: Path) -> None:
    check(build(tmp_path, script="ulimit -Sn 256"))


def test_no_network(tmp_path: Path, unshare: list[str]) -> None:
    if not shutil.which("ip"):
        pytest.skip("there is no ip to raise the loopback interface with")
    check(build(tmp_path, *unshare, "-n", script="ip link set lo up"))


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_dead_proxy(tmp_path: Path, proxy: str) -> None:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    check(build(tmp_path, **dict.fromkeys((*names, *map(str.lower, names)), proxy)))


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    check(build(tmp_path, HOME="/proc/1/nowhere", XDG_CACHE_HOME="/proc/1/nowhere"))


def test_a_full_tmp(tmp_path: Path, unshare: list[str]) -> None:
    script = "mkdir -p /tmp/full-of-kit19\nmount -t tmpfs -o size=1m tmpfs /tmp/full-of-kit19"
    full = "/tmp/full-of-kit19"
    refused(build(tmp_path, *unshare, script=script, TMPDIR=full, RAY_TMPDIR=full), f"'{full}' has 1 MB free")


def test_a_memory_limit_of_a_cgroup(tmp_path: Path) -> None:
    modern = (CGROUP / "cgroup.controllers").exists()
    parent, limit = (CGROUP, "memory.max") if modern else (CGROUP / "memory", "memory.limit_in_bytes")
    group = parent / f"kit19-test-{os.getpid()}"
    if not (parent / "cgroup.procs").exists():
        pytest.skip("there are no cgroups here")
    try:
        group.mkdir()
        (group / limit).write_text(str(3 << 30))
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no cgroup with a memory limit can be made here: {error}")
    try:
        check(build(tmp_path, script=f"echo $$ > {group}/cgroup.procs"))
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:  # Ray's last processes are ending
                time.sleep(0.2)
