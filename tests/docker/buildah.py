"""Images really built: by buildah, without a registry, over a base of Debian's own made by debootstrap.

The base stands in for the official Python images of Debian 12 that the Dockerfiles name: a Python 3.11, bash and wget.
What else those bring is not tested; what the Dockerfiles do is. Each command's output goes to `Builder.log`; each has a
limit.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[2]
BASE = "localhost/python-base"
_PACKAGES = "ca-certificates,python3,python3-venv,wget"
_ISOLATION = ("--isolation", "chroot")


def missing() -> str:
    """Why no image can be built here, or ""."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "images are built by root on Linux"
    absent = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    return f"{' and '.join(absent)}: not installed" if absent else ""


@dataclass(frozen=True)
class Builder:
    """Builds into a store of its own, which `close` deletes.

    Attributes:
        folder: of the store.
        log: what every command said, and how long it took.
    """

    folder: Path
    log: Path

    def base(self) -> None:
        """Debian 12 as the image BASE; nothing where it is there already."""
        if BASE in self._buildah(60, "images", "--format", "{{.Name}}").split():
            return
        system = self.folder / "debian"
        mirror = os.environ.get("KIT19_DEBIAN_MIRROR", "http://deb.debian.org/debian")
        include = f"--include={_PACKAGES}"
        self._run(900, "debootstrap", "--variant=minbase", include, "bookworm", str(system), mirror)
        container = self._buildah(60, "from", "scratch")
        self._buildah(300, "add", "--quiet", container, str(system), "/")
        self._buildah(300, "commit", "--quiet", "--rm", container, BASE)
        shutil.rmtree(system)

    def build(self, name: str, dockerfile: str, seconds: float, **arguments: str) -> str:
        """Builds docker/<dockerfile> with its ARGs; returns the image's tag and logs its size.

        Raises:
            AssertionError: it fails, or takes longer than `seconds`.
        """
        self.base()
        tag = f"localhost/kit19-test-{name}"
        pip, places = self._pip()
        mounts = [f"{pip}:/etc/pip.conf:ro", *(f"{place}:{place}:ro" for place in places)]
        words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        words += [word for mount in mounts for word in ("--volume", mount)]
        file = ("-t", tag, "-f", f"docker/{dockerfile}", ".")
        self._buildah(
            seconds, "bud", *_ISOLATION, "--pull-never", "--layers", "--build-arg", f"BASE={BASE}", *words, *file
        )
        size = self._buildah(60, "images", "--format", "{{.Size}}", tag)
        with self.log.open("a") as log:
            log.write(f"== {name}: {size}\n")
        return tag

    def run_in(self, tag: str, *words: str, volumes: tuple[str, ...] = (), seconds: float = 300) -> str:
        """Output of a command in a fresh container of an image, as its user and with its variables."""
        with self.container(tag) as container:
            return self._buildah(seconds, *_in_container(container, words, volumes))

    @contextmanager
    def started_in(self, tag: str, *words: str, volumes: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[bytes]]:
        """A command at work in a container, on this machine's network; ended with all it started."""
        with self.container(tag) as container, self.log.open("ab") as log:
            command = [*self._program(), *_in_container(container, words, volumes)]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPO, start_new_session=True)
            try:
                yield process
            finally:
                _end(process)

    @contextmanager
    def container(self, tag: str) -> Iterator[str]:
        """A fresh container of an image."""
        container = self._buildah(120, "from", "--pull-never", tag)
        try:
            yield container
        finally:
            self._buildah(60, "rm", container)

    def close(self) -> None:
        """Deletes the store, unless something is still mounted in it."""
        self._buildah(120, "rm", "--all")
        self._buildah(300, "rmi", "--all", "--force")
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in sorted((one for one in mounted if one.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", place], check=True)
        shutil.rmtree(self.folder)

    def _program(self) -> tuple[str, ...]:
        # Layers are shared by overlay; without it each would be a copy of the whole.
        store = ("--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"))
        return ("buildah", *store, "--storage-driver", os.environ.get("KIT19_BUILDAH_DRIVER", "overlay"))

    def _buildah(self, seconds: float, *words: str) -> str:
        return self._run(seconds, *self._program(), *words)

    def _run(self, seconds: float, *words: str) -> str:
        """A command's standard output; its errors, of a build its progress too, go to the log as they come.

        Raises:
            AssertionError: it fails, or takes longer than `seconds`; all it started is ended then.
        """
        command, started = shlex.join(words), time.monotonic()
        answer = self.folder / "answer"
        with self.log.open("ab") as log, answer.open("wb") as out:
            log.write(f"$ {command}\n".encode())
            log.flush()
            target = log if "bud" in words or words[0] == "debootstrap" else out
            process = subprocess.Popen(words, stdout=target, stderr=log, cwd=REPO, start_new_session=True)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = -1
            finally:
                _end(process)
            said = answer.read_bytes()
            log.write(said + f"-- {code} after {time.monotonic() - started:.0f} s\n".encode())
        end = self.log.read_bytes()[-4000:].decode(errors="replace")
        assert code == 0, f"{'not done' if code == -1 else 'failed'} after {seconds} s: {command}\n{end}"
        return said.decode().strip()

    def _pip(self) -> tuple[Path, list[str]]:
        """This machine's own settings of pip as a file, and the folders they name."""
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        )
        known = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        wanted = ("index-url", "extra-index-url", "find-links", "cert", "default-timeout", "trusted-host")
        found = {key: known.get(f":env:.{key}", known.get(f"global.{key}", "")).strip("'\"") for key in wanted}
        file = self.folder / "pip.conf"
        file.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in found.items() if value))
        words = [word.removeprefix("file://") for value in found.values() for word in value.split()]
        # An index in a folder names its files by relative links.
        places = [str(Path(word).parent) if Path(word).name == "simple" else word for word in words if word[:1] == "/"]
        return file, [place for place in dict.fromkeys(places) if Path(place).exists()]


def _in_container(container: str, words: tuple[str, ...], volumes: tuple[str, ...]) -> list[str]:
    mounts = [word for volume in volumes for word in ("--volume", volume)]
    return ["run", *_ISOLATION, *mounts, container, "--", *words]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a command and all that is in its session: what runs in a container would live on and hold its mounts."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        members = _session(process.pid)
        for member in members:
            with suppress(ProcessLookupError):
                os.kill(member, number)
        limit = time.monotonic() + 30
        while members and _session(process.pid) and time.monotonic() < limit:
            process.poll()
            time.sleep(0.1)
    process.wait(30)


def _session(leader: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                # After the name in parentheses: state, parent, group, session.
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append(int(place.name))
    return found
