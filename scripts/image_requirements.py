"""Writes docker/requirements/ from pyproject.toml and constraints.txt: what images install, by version and SHA-256.

    python -m scripts.image_requirements        (`make constraints` calls it; needs uv and PyPI)

An image installs with `pip --require-hashes --no-deps`, so its list is whole; hashes are of what fits Python 3.11 on
glibc 2.36 (Debian 12), x86-64 and ARM: a source archive only where the release has no such wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

REPO = Path(__file__).parents[1]
FOLDER = REPO / "docker" / "requirements"
MACHINES = ("x86_64", "aarch64")
GLIBC = 36  # 2.36, of Debian 12
# What each image's environment has: extras of pyproject.toml, or one of its groups.
STAGES = {
    "data": ("data",),
    "train": ("data", "train", "lora", "evaluate", "serve"),
    "serve": ("serve",),
    "vllm": ("serve", "vllm"),
    "operate": ("operate",),
}
# Torch and what only its CUDA build needs, apart: an image without GPUs takes torch-cpu.txt instead.
TORCH = ("torch", "triton", "nvidia-", "cuda-")
# vLLM pins much itself, transformers among it: of our versions it keeps these.
VLLM_PINS = ("ray==", "torch==")
BUILD = ("pip", "setuptools")  # first: what builds the source archives
# From https://download.pytorch.org/whl/cpu, which is no index of PyPI's and is asked by nobody here.
TORCH_CPU = {
    "2.13.0": (
        "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",  # cp311, x86_64
        "84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7",  # cp311, aarch64
    )
}
HEADER = "# Written by `python -m scripts.image_requirements`, for `pip install --require-hashes --no-deps`.\n"


def main() -> None:
    """Writes every file."""
    FOLDER.mkdir(exist_ok=True)
    for stage, extras in STAGES.items():
        words = ["pyproject.toml", *(word for extra in extras for word in ("--extra", extra))]
        packages = list(_fitting(_resolve(words, VLLM_PINS if stage == "vllm" else ("",))))
        apart = stage in ("train", "serve")
        torch = [one for one in packages if apart and one["name"].startswith(TORCH)]
        if torch:
            _write("torch-cuda", HEADER, torch)
            (FOLDER / "torch-cpu.txt").write_text(_torch_cpu(torch))
        text = HEADER + ("-r torch.txt  # torch-cuda.txt or torch-cpu.txt\n" if apart else "")
        _write(stage, text, [one for one in packages if one not in torch and one["name"] not in BUILD])
    tools = list(_fitting(_resolve(["--group", "images"], ())))
    _write("build", HEADER, [one for one in tools if one["name"] in BUILD])
    _write("sbom", HEADER, [one for one in tools if one["name"] not in BUILD])


def _write(name: str, head: str, packages: list[dict[str, Any]]) -> None:
    (FOLDER / f"{name}.txt").write_text(head + "".join(map(_lines, packages)))
    megabytes = sum(int(one["size"]) for one in packages) / 1e6
    print(f"docker/requirements/{name}.txt: {len(packages)} packages, {megabytes:.0f} MB to download")


def _resolve(words: list[str], pins: tuple[str, ...]) -> list[dict[str, Any]]:
    """uv's answer, the packages of a pylock.toml; those that begin with one of `pins` as in constraints.txt."""
    lines = (REPO / "constraints.txt").read_text().splitlines()
    with tempfile.TemporaryDirectory() as folder:
        constraints, lock = Path(folder, "constraints.txt"), Path(folder, "pylock.toml")
        constraints.write_text("\n".join(line for line in lines if line.startswith(pins)))
        # vLLM has no wheel for every system that a universal answer covers.
        platform = ["--python-platform", f"x86_64-manylinux_2_{GLIBC - 1}"] if pins == VLLM_PINS else ["--universal"]
        uv = ["uv", "pip", "compile", *words, "--constraint", str(constraints), *platform]
        uv += ["--python-version", "3.11", "--quiet", "--no-emit-package", "kit19-ray", "--output-file", str(lock)]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(uv, check=True, cwd=REPO, env=os.environ | {"PATH": path})
        found: list[dict[str, Any]] = tomllib.loads(lock.read_text())["packages"]
    return found


def _fitting(packages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those that an image installs, with `hashes`, `size` (bytes) and `machine`, the only kind that does or ""."""
    for package in sorted(packages, key=lambda one: str(one["name"])):
        machines = [one for one in MACHINES if wanted(package.get("marker", ""), one)]
        tags = {tag for machine in machines for tag in _tags(machine)}
        wheels = [one for one in package.get("wheels", []) if parse_wheel_filename(_file(one))[3] & tags]
        files = wheels or ([package["sdist"]] if "sdist" in package else [])
        if machines and not files:
            raise SystemExit(f"{package['name']}=={package['version']}: no file fits the images")
        if machines:
            machine = machines[0] if len(machines) == 1 else ""
            size = max(one["size"] for one in files)  # one for each kind of machine, much alike
            hashes = sorted({one["hashes"]["sha256"] for one in files})
            yield package | {"hashes": hashes, "machine": machine, "size": size}


def wanted(marker: str, machine: str) -> bool:
    """Whether a requirement with this marker is meant for an image on `machine`."""
    image = {
        "python_version": "3.11",
        "python_full_version": "3.11.15",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
    }
    return not marker or Marker(marker).evaluate(image)


def _tags(machine: str) -> set[Tag]:
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(5, GLIBC + 1)]
    platforms += [f"manylinux{year}_{machine}" for year in ("1", "2010", "2014")] + [f"linux_{machine}"]
    own = cpython_tags((3, 11), platforms=platforms)
    return {*own, *compatible_tags((3, 11), interpreter="cp311", platforms=platforms)}


def _file(wheel: dict[str, Any]) -> str:
    return str(wheel["url"]).rpartition("/")[2].replace("%2B", "+")


def _lines(package: dict[str, Any]) -> str:
    only = f' ; platform_machine == "{package["machine"]}"' if package["machine"] else ""
    hashes = "".join(f" \\\n    --hash=sha256:{one}" for one in package["hashes"])
    return f"{package['name']}=={package['version']}{only}{hashes}\n"


def _torch_cpu(torch: list[dict[str, Any]]) -> str:
    version = next(str(one["version"]) for one in torch if one["name"] == "torch")
    if version not in TORCH_CPU:
        raise SystemExit(f"torch {version}: add the hashes of its CPU wheels to TORCH_CPU in {Path(__file__).name}")
    line = _lines({"name": "torch", "version": f"{version}+cpu", "machine": "", "hashes": TORCH_CPU[version]})
    return f"{HEADER}# Of PyTorch's own index: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu\n{line}"


if __name__ == "__main__":
    main()
