"""The Dockerfiles: pins, user, no secrets; and their pip steps, run in a fresh virtual environment from the same files.

No container engine is needed: what a base image brings beside Python is not tested here.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kit19_ray import __version__
from kit19_ray.operate.api.spec import RAY_VERSION

REPO = Path(__file__).parents[2]
NAMES = ("train", "serve", "operate")
PYTHON = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the images have Python 3.11")
EACH = pytest.mark.parametrize("name", NAMES)
PINS = {
    line.split("==")[0]: line.split("==")[1].split(" ;")[0].strip()
    for line in (REPO / "constraints.txt").read_text().splitlines()
    if "==" in line and ("python_full_version" not in line or "< '3.12'" in line)
}


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile, on one line."""

    word: str
    text: str


def steps(name: str) -> list[Step]:
    """The instructions of an image, with the defaults of its ARGs filled in."""
    text = (REPO / f"docker/Dockerfile.{name}").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found, arguments = [], {}
    for line in joined.splitlines():
        word, text = line.split(maxsplit=1)
        text = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), text)
        if word == "ARG":
            key, _, value = text.partition("=")
            arguments[key] = value
        found.append(Step(word, text))
    return found


def pip_lines(name: str) -> list[str]:
    """The RUN instructions that install packages."""
    return [step.text for step in steps(name) if step.word == "RUN" and step.text.startswith("pip install")]


@EACH
def test_base_is_pinned_and_fits(name: str) -> None:
    (base,) = [step.text for step in steps(name) if step.word == "FROM"]  # a digest may be given for it: ARG BASE
    if name == "operate":
        assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base)
    else:
        assert base == f"rayproject/ray:{RAY_VERSION}-py311-cpu" and PINS["ray"] == RAY_VERSION


@EACH
def test_runs_as_a_user_and_holds_everything(name: str) -> None:
    found = steps(name)
    user = [step.text for step in found if step.word == "USER"][-1]
    assert user == ("1000:1000" if name == "operate" else "1000:100")  # what the pods run as
    last_root = max((at for at, step in enumerate(found) if step.word == "USER" and step.text == "root"), default=-1)
    assert not [step for step in found[: last_root + 1] if step.word == "COPY"]
    for line in pip_lines(name):
        assert "--constraint constraints.txt" in line or "--no-deps" in line
        assert "--no-cache-dir" in line
    assert pip_lines(name)[-1].endswith("&& pip check")
    # In an environment of its own: a base's own packages are not ours to check (finding A6).
    (made,) = [
        at for at, step in enumerate(found) if step.word == "RUN" and "python3 -m venv /opt/kit19/venv" in step.text
    ]
    paths = [at for at, step in enumerate(found) if step.word == "ENV" and "PATH=/opt/kit19/venv/bin:" in step.text]
    first = next(at for at, step in enumerate(found) if step.text == pip_lines(name)[0])
    assert made < first and min(paths) < first
    assert found[-1].word == "CMD" and json.loads(found[-1].text)[0] == "kit19"


@EACH
def test_nothing_secret_and_nothing_floating(name: str) -> None:
    text = (REPO / f"docker/Dockerfile.{name}").read_text()
    assert ":latest" not in text and "curl" not in text and "apt-get" not in text and "ADD " not in text
    for step in steps(name):
        if step.word in ("ARG", "ENV"):
            assert not re.search(r"secret|token|password|key", step.text, re.IGNORECASE), step
    assert f"kit19-ray/{name}:{__version__}" in text  # the name the charts default to


@EACH
def test_copies_only_what_the_context_has(name: str) -> None:
    ignored = [line for line in (REPO / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"  # all but what is named
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    for step in steps(name):
        if step.word == "COPY":
            *sources, _ = [word for word in step.text.split() if not word.startswith("--")]
            for source in sources:
                assert (REPO / source).exists(), source
                assert any(source == one or source.startswith(f"{one}/") for one in allowed), source
    assert not any(fnmatch.fnmatch(".git", pattern) for pattern in allowed)


def test_charts_and_samples_name_these_images() -> None:
    run = yaml.safe_load((REPO / "helm/kit19-run/values.yaml").read_text())
    operator = yaml.safe_load((REPO / "helm/kit19-operator/values.yaml").read_text())
    images = {run["images"]["train"], run["images"]["serve"], operator["image"]["name"]}
    assert images == {f"kit19-ray/{name}:{__version__}" for name in NAMES}


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """A folder and a virtual environment, of gigabytes, gone in the end."""
    yield Build(tmp_path)
    shutil.rmtree(tmp_path)


class Build:
    """An image's COPY and pip steps, done in a folder and a virtual environment of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "opt"
        self.folder.mkdir()
        self.environment = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", str(self.environment)], check=True)

    def run(self, line: str, **more: str) -> str:
        """A command as the image's shell would run it; returns its stdout."""
        path = f"{self.environment}/bin:/usr/bin:/bin"
        kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key.endswith("_proxy")}
        environment = kept | {"PATH": path, "HOME": str(self.folder), "INSTALL_ARGS": "", "PIP_NO_COMPILE": "1"} | more
        if cache := os.environ.get("HOME"):
            environment["PIP_CACHE_DIR"] = f"{cache}/.cache/pip"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def copy(self, step: Step) -> None:
        """COPY."""
        *sources, target = [word for word in step.text.split() if not word.startswith("--")]
        for source in sources:
            to = self.folder / (target if len(sources) == 1 and target != "./" else Path(source).name)
            to.parent.mkdir(parents=True, exist_ok=True)
            if (REPO / source).is_dir():
                shutil.copytree(REPO / source, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(REPO / source, to)

    def image(self, name: str) -> None:
        """Every COPY and every pip step, in order. The cache is used, and the index is this machine's."""
        for step in steps(name):
            if step.word == "COPY":
                self.copy(step)
            elif step.text in pip_lines(name):
                self.run(here(step.text))


def here(line: str) -> str:
    """A pip step with this machine's own index and cache: it has the CPU build of torch already."""
    return re.sub(r'--extra-index-url "[^"]*" ', "", line).replace("--no-cache-dir ", "--quiet ")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@PYTHON
def test_train_image_has_what_the_stages_need(build: Build) -> None:
    build.image("train")
    assert build.run("cd /; kit19 --version").strip() == f"kit19-ray {__version__}"
    modules = (
        "ray.data, ray.train, ray.serve, torch, deepspeed, lm_eval, fastapi, kit19_ray.cli.retry, kit19_ray.pipeline"
    )
    build.run(
        f"cd /; python -c 'import {modules}, kit19_ray.evaluate.stage, kit19_ray.train.stage, kit19_ray.data.stage'"
    )
    build.run("cd /; python -m kit19_ray tasks --json", HF_HUB_OFFLINE="1")
    assert "kit19_ray/__init__.py" in build.run("cd /; python -c 'import kit19_ray; print(kit19_ray.__file__)'")
    listed = {one["name"].lower(): one["version"] for one in json.loads(build.run("pip list --format json"))}
    wrong = {name: version for name, version in listed.items() if name in PINS and PINS[name] != version.split("+")[0]}
    assert not wrong
    assert build.run("cd /; ray --version").strip().endswith(RAY_VERSION)  # KubeRay starts the cluster with it


@pytest.mark.slow
@pytest.mark.timeout(1800)
@PYTHON
def test_operate_image_needs_no_torch(build: Build) -> None:
    build.image("operate")
    assert build.run("cd /; kit19 --version").strip() == f"kit19-ray {__version__}"
    build.run("cd /; python -c 'from kit19_ray.operate.controller import main, handlers, stage_output'")
    assert "--lease-namespace" in build.run("cd /; COLUMNS=200 kit19 operate --help")
    names = {one["name"].lower() for one in json.loads(build.run("pip list --format json"))}
    assert not names & {"ray", "torch", "transformers", "deepspeed"} and {"kopf", "kubernetes"} <= names


@pytest.mark.slow
@pytest.mark.timeout(1800)
@PYTHON
def test_serve_image_resolves_to_the_pins(build: Build) -> None:
    """Resolved, not installed: its packages are a part of the train image's, whose installation is tested."""
    for step in steps("serve"):
        if step.word == "COPY":
            build.copy(step)
    line = here(pip_lines("serve")[0]).replace("pip install", "pip install --dry-run --report report.json")
    build.run(line)
    report = json.loads((build.folder / "report.json").read_text())
    chosen = {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in report["install"]}
    assert {"ray", "torch", "transformers", "fastapi", "safetensors"} <= chosen.keys() and "lm-eval" not in chosen
    wrong = {name: version for name, version in chosen.items() if name in PINS and PINS[name] != version.split("+")[0]}
    assert not wrong
