"""Images really built: by buildah, without a registry, over a base of Debian's own made by debootstrap.

The base stands in for what the Dockerfiles name after FROM: a Python 3.11, bash and wget, and for Ray's image its user.
What else those bring is not tested; what the Dockerfiles do is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[2]
_PACKAGES = "ca-certificates,python3,python3-venv,wget"
_ISOLATION = ("--isolation", "chroot")


def missing() -> str:
    """Why no image can be built here, or ""."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "images are built by root on Linux"
    absent = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    return f"{' and '.join(absent)}: not installed" if absent else ""


def run(*words: str, seconds: int = 1500) -> str:
    """A command's output.

    Raises:
        AssertionError: it fails.
    """
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, cwd=REPO)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@dataclass(frozen=True)
class Builder:
    """Builds into a store of its own.

    Attributes:
        folder: of the store; it is the caller's to delete.
    """

    folder: Path

    def _buildah(self, *words: str, seconds: int = 1500) -> str:
        store = ("--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"))
        return run("buildah", *store, "--storage-driver", "vfs", *words, seconds=seconds).strip()

    def base(self, name: str) -> None:
        """Debian 12 as the image `name`, with the user that Ray's images have."""
        system = self.folder / "debian"
        if not system.is_dir():
            command = ("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(system))
            run(*command, os.environ.get("KIT19_DEBIAN_MIRROR", "http://deb.debian.org/debian"))
        container = self._buildah("from", "scratch")
        self._buildah("add", container, str(system), "/")
        user = "useradd --uid 1000 --gid 100 --create-home ray"
        if "ray" in name:
            self._buildah("run", *_ISOLATION, container, "sh", "-c", user)
            self._buildah("config", "--user", "1000:100", "--env", "HOME=/home/ray", container)
        self._buildah("commit", "--rm", container, name)

    def build(self, name: str, base: str) -> str:
        """Builds docker/Dockerfile.<name>; returns the image's tag."""
        tag = f"localhost/kit19-test-{name}"
        pip, mounts = self._pip()
        volumes = [word for source, target in mounts for word in ("--volume", f"{source}:{target}:ro")]
        words = ("bud", *_ISOLATION, "--pull-never", "--build-arg", f"BASE={base}", *volumes)
        self._buildah(*words, "--volume", f"{pip}:/etc/pip.conf:ro", "-t", tag, "-f", f"docker/Dockerfile.{name}", ".")
        return tag

    def run_in(self, tag: str, *words: str, volumes: tuple[str, ...] = (), seconds: int = 900) -> str:
        """Output of a command in a fresh container of an image, as its user and with its variables."""
        container = self._buildah("from", "--pull-never", tag)
        try:
            mounts = [word for volume in volumes for word in ("--volume", volume)]
            return self._buildah("run", *_ISOLATION, *mounts, container, "--", *words, seconds=seconds)
        finally:
            self._buildah("rm", container)

    def _pip(self) -> tuple[Path, list[tuple[str, str]]]:
        """This machine's own settings of pip as a file, and the folders they name."""
        listed = run(sys.executable, "-m", "pip", "config", "list").splitlines()
        known = dict(line.split("=", 1) for line in listed if "=" in line)
        wanted = ("index-url", "extra-index-url", "find-links", "cert", "default-timeout", "trusted-host")
        found = {key: known.get(f":env:.{key}", known.get(f"global.{key}", "")).strip("'\"") for key in wanted}
        file = self.folder / "pip.conf"
        file.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in found.items() if value))
        words = [word.removeprefix("file://") for value in found.values() for word in value.split()]
        # An index in a folder names its files by relative links.
        places = [str(Path(word).parent) if Path(word).name == "simple" else word for word in words if word[:1] == "/"]
        return file, [(place, place) for place in dict.fromkeys(places) if Path(place).exists()]
