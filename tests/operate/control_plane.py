"""A real Kubernetes API server for the tests: the one KIT19_TEST_KUBECONFIG names, or etcd + kube-apiserver +
kube-controller-manager on loopback from ../shared/kube/control-plane.sh."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).parents[2]


@dataclass
class ControlPlane:
    """A running API server.

    Attributes:
        kubeconfig: path of an administrator's kubeconfig.
        folder: its state; None where it is not ours to stop and start.
    """

    kubeconfig: Path
    folder: Path | None
    environment: dict[str, str]
    restarted: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator."""
        done = subprocess.run(
            [kubectl_binary(), "--kubeconfig", str(self.kubeconfig), *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(words)}: {done.stderr}")
        return done

    def stop_api_server(self) -> None:
        """Ends the API server at once, as a crash does; etcd stays."""
        assert self.folder is not None
        pid = int((self.folder / "apiserver.pid").read_text())
        os.kill(pid, 9)
        _gone(pid)

    def start_api_server(self) -> None:
        """Starts it again on the same etcd and waits until it is ready."""
        assert self.folder is not None
        command = (self.folder / "apiserver.command").read_bytes().split(b"\0")[:-1]
        with (self.folder / "apiserver.log").open("ab") as log:
            started = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        self.restarted.append(started)
        (self.folder / "apiserver.pid").write_text(str(started.pid))
        wait_for_api(self)

    def stop(self) -> None:
        """Ends everything that `start` started."""
        if self.folder is not None:
            subprocess.run([script(), "stop", str(self.folder)], env=self.environment, check=True, timeout=60)
        for process in self.restarted:
            process.wait(timeout=30)


def script() -> str:
    """The script that builds and starts the servers, or "" where there is none."""
    shared = Path(os.environ.get("KIT19_SHARED") or REPO.parent / "shared")
    found = shared / "kube" / "control-plane.sh"
    return str(found) if found.is_file() else ""


def missing() -> str:
    """Why no API server can be had here, or ""."""
    if os.environ.get("KIT19_TEST_KUBECONFIG"):
        return ""
    home = Path(os.environ.get("KUBE_HOME") or Path.home() / ".cache" / "kube-1.20")
    if not script():
        return "there is no ../shared/kube/control-plane.sh, and KIT19_TEST_KUBECONFIG is not set"
    if not (home / "bin" / "kube-apiserver").is_file():
        return f"the control plane is not built ({script()} build), and KIT19_TEST_KUBECONFIG is not set"
    if not kubectl_binary():
        return "there is no kubectl"
    return ""


def kubectl_binary() -> str:
    """kubectl's path, or ""."""
    return shutil.which("kubectl") or ""


def start(folder: Path) -> ControlPlane:
    """Starts the servers with their state in `folder`; they get three free ports, or those from KUBE_PORT on."""
    named = os.environ.get("KIT19_TEST_KUBECONFIG")
    if named:
        return ControlPlane(Path(named), None, dict(os.environ))
    environment = dict(os.environ) | {"KUBE_PORT": os.environ.get("KUBE_PORT") or str(_free_ports(3))}
    subprocess.run(
        [script(), "start", str(folder)], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=180
    )
    plane = ControlPlane(folder / "kubeconfig", folder, environment)
    pid = (folder / "apiserver.pid").read_text().strip()
    (folder / "apiserver.command").write_bytes(Path(f"/proc/{pid}/cmdline").read_bytes())
    wait_for_api(plane)
    return plane


def install_kuberay_crds(plane: ControlPlane) -> None:
    """KubeRay's CRDs as the API server can take them; nothing where they are installed already."""
    have = plane.kubectl("get", "crd", "-o", "name").stdout
    if "rayjobs.ray.io" in have:
        return
    for file in sorted((Path(script()).parent / "crds-1.20").glob("*.json")):
        definition = json.loads(file.read_text(encoding="utf-8"))
        for version in definition["spec"]["versions"]:
            # Its messages have lost their empty defaults, without which KubeRay's own statuses lack a required field.
            schema = version["schema"]["openAPIV3Schema"]
            schema["properties"]["status"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        plane.kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(definition))
    wait_for_crds(plane, ["rayclusters.ray.io", "rayjobs.ray.io", "rayservices.ray.io"])


def wait_for_crds(plane: ControlPlane, names: Sequence[str]) -> None:
    """Waits until the API serves the custom resources `names` and its OpenAPI document, kubectl's source, has them."""
    wait_until_established(plane, names)
    groups = {".".join(reversed(name.split(".")[1:])) + "." for name in names}
    limit = time.monotonic() + 60
    while any(group not in plane.kubectl("get", "--raw", "/openapi/v2").stdout for group in groups):
        assert time.monotonic() < limit, f"the API server does not publish {', '.join(names)}"
        time.sleep(0.5)


def wait_until_established(plane: ControlPlane, names: Sequence[str]) -> None:
    """Waits until the API serves the custom resources `names`."""
    words = ["wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names)]
    if plane.kubectl(*words, check=False).returncode:
        time.sleep(1)  # one so new that it has no conditions at all is an error to kubectl
        plane.kubectl(*words)


def wait_for_api(plane: ControlPlane, seconds: float = 60) -> None:
    """Waits until the API server is ready.

    Raises:
        AssertionError: it is not within `seconds`.
    """
    limit = time.monotonic() + seconds
    while True:
        done = plane.kubectl("get", "--raw", "/readyz", check=False)
        if done.returncode == 0 and done.stdout.strip() == "ok":
            return
        if time.monotonic() > limit:
            raise AssertionError(f"the API server is not ready: {done.stderr}")
        time.sleep(0.2)


def _gone(pid: int) -> None:
    """Waits for a process to end; one whose parent we are is reaped."""
    for _ in range(100):
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":  # its parent, the machine's first process, need not reap it
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} does not end")


def _free_ports(number: int) -> int:
    """The first of `number` consecutive ports on loopback that nobody listens on."""
    for port in range(20_000 + os.getpid() % 20_000, 60_000, number):
        probes = [socket.socket() for _ in range(number)]
        try:
            for offset, probe in enumerate(probes):
                probe.bind(("127.0.0.1", port + offset))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return port
    raise AssertionError("no free ports")
