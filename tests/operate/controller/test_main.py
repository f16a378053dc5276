"""The process: what it says when it cannot start, and what it must not load."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kit19_ray.errors import OperateError
from kit19_ray.operate.controller import main


def operate(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kit19_ray", "operate", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    """Of a cluster that does not answer."""
    tree = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"token": "x"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(tree))
    return str(file)


def test_without_a_cluster_it_says_what_to_set() -> None:
    done = operate(KUBECONFIG="/no/such/file")
    assert done.returncode == 2 and "error: no cluster:" in done.stderr and "set KUBECONFIG" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_ways_to_say_where_exclude_one_another() -> None:
    done = operate("--namespace", "a", "--all-namespaces")
    assert done.returncode == 2 and "--namespace and --all-namespaces exclude one another" in done.stderr


def test_a_taken_port_is_named(kubeconfig: str) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = operate("--metrics-port", port, KUBECONFIG=kubeconfig)
    assert done.returncode == 2 and f"cannot listen on port {port}" in done.stderr and "Traceback" not in done.stderr


def test_sigterm_ends_it_while_it_waits_for_the_lease(kubeconfig: str) -> None:
    command = [sys.executable, "-m", "kit19_ray", "operate", "--namespace", "a"]
    process = subprocess.Popen(command, env=os.environ | {"KUBECONFIG": kubeconfig}, stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:
        if b"the lease cannot be taken" in line:
            break
    process.terminate()
    with process.stderr:
        assert process.wait(timeout=20) == 0


def test_it_loads_neither_ray_nor_torch() -> None:
    script = (
        "import sys; from kit19_ray.operate.controller import main; "
        "print([m for m in ('ray', 'torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ((), "the API server does not know kit19.dev/v1alpha1"),
        (("kit19.dev",), "the API server does not know ray.io/v1"),
    ],
)
def test_a_cluster_without_the_definitions_is_refused(known: tuple[str, ...], said: str) -> None:
    class Partial:
        def serves(self, group: str, version: str) -> bool:
            return group in known

    with pytest.raises(OperateError, match=said):
        main._check_kinds(Partial())  # type: ignore[arg-type]
