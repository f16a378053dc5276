"""What one node of a cluster has: runs there, as a Ray task, and imports no model library."""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from kit19_ray.errors import StorageError
from kit19_ray.io import storage

PACKAGES = ("kit19-ray", "ray", "torch", "transformers", "deepspeed", "pyarrow")


class Gpu(TypedDict):
    """One card, as nvidia-smi says."""

    name: str
    bytes: int
    driver: str


class NodeLook(TypedDict):
    """What the task found.

    Attributes:
        versions: of Python and the packages that are installed.
        cuda: of torch's wheel; None where it has none, or no torch is there.
        disk_bytes: free for temporary files.
        root: why the root cannot be used from there; "" when it can.
    """

    host: str
    versions: dict[str, str]
    cuda: str | None
    gpus: list[Gpu]
    disk_bytes: int
    root: str


def look(probe: str) -> NodeLook:
    """What this node has.

    Args:
        probe: URI of a file that the driver has written below the root; others are written beside it, and deleted.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "host": platform.node(),
        "versions": found,
        "cuda": _cuda(),
        "gpus": cards(),
        "disk_bytes": shutil.disk_usage(tempfile.gettempdir()).free,
        "root": _root(probe),
    }


def _root(probe: str) -> str:
    mine = f"{probe}-{secrets.token_hex(4)}"
    try:
        if not storage.exists(probe):
            return "what the driver wrote there is not there: the root must be one that all nodes share"
        storage.write_text(mine, "")
        storage.delete(mine)
    except StorageError as error:
        return str(error).splitlines()[0]
    return ""


def _cuda() -> str | None:
    """Read from torch's files: importing it takes seconds on every node."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "version.py"
    found = re.search(r"^cuda[^=]*= '([\d.]+)'", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1] if found else None


def cards() -> list[Gpu]:
    """The node's, whichever this process may use; none where nvidia-smi is not there."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(done.stdout) if done.returncode == 0 else []


def parse_gpus(text: str) -> list[Gpu]:
    """nvidia-smi's lines of name, memory in MiB and driver."""
    found: list[Gpu] = []
    for line in text.splitlines():
        name, memory, driver = (part.strip() for part in line.rsplit(",", 2))
        found.append({"name": name, "bytes": int(memory) << 20 if memory.isdigit() else 0, "driver": driver})
    return found
