"""A modern API server for CustomResourceDefinitions, from ../shared/kube/crd-server.sh: CEL, strict field validation,
server-side apply. It has no pods, RBAC or garbage collection; those are `control_plane`'s."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.operate.control_plane import ControlPlane, _free_ports, kubectl_binary, script

_CRDS = "crds"


def _program() -> Path:
    return Path(script()).parent / "crd-server.sh" if script() else Path("crd-server.sh")


def missing() -> str:
    """Why the server cannot be had here, or ""."""
    home = Path(os.environ.get("CRD_HOME") or Path.home() / ".cache" / "kube-crd")
    if not _program().is_file():
        return "there is no ../shared/kube/crd-server.sh"
    if not (home / "bin" / "crd-apiserver").is_file():
        return f"the CRD server is not built ({_program()} build)"
    return "" if kubectl_binary() else "there is no kubectl"


def start(folder: Path) -> ControlPlane:
    """Starts it with its state in `folder`, with KubeRay's unmodified CRDs."""
    environment = dict(os.environ) | {"CRD_PORT": os.environ.get("CRD_PORT") or str(_free_ports(3))}
    command = [str(_program()), "start", str(folder)]
    # Its servers keep our streams: to wait for the end of a pipe would be to wait for theirs.
    with (folder / "start.out").open("wb") as out:
        subprocess.run(command, env=environment, check=True, stdout=out, stderr=out, timeout=180)
    kubeconfig = (folder / "start.out").read_text().split()[-1]
    plane = ControlPlane(Path(kubeconfig), folder, environment)
    for file in sorted((_program().parent / _CRDS).glob("*.json")):
        plane.kubectl("create", "-f", str(file))
    return plane


def stop(plane: ControlPlane) -> None:
    """Ends it."""
    subprocess.run([str(_program()), "stop", str(plane.folder)], env=plane.environment, check=True, timeout=60)
