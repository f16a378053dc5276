"""The Dockerfiles and docker/requirements: pins, hashes, user, order of layers, no secrets. Nothing is built here."""

from __future__ import annotations

import fnmatch
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kit19_ray import __version__
from kit19_ray.lm.cuda import OLDEST_DRIVER
from kit19_ray.operate.api.spec import RAY_VERSION
from scripts.image_requirements import BUILD, STAGES, TORCH, TORCH_CPU, wanted

REPO = Path(__file__).parents[2]
FILES = ("stage", "operate")
EACH_FILE = pytest.mark.parametrize("name", FILES)
REQUIREMENTS = sorted((REPO / "docker/requirements").glob("*.txt"))
PINS = {
    line.split("==")[0]: line.split("==")[1].split(" ;")[0].strip()
    for line in (REPO / "constraints.txt").read_text().splitlines()
    if "==" in line and wanted(line.partition(" ; ")[2], "x86_64")
}


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile, on one line."""

    word: str
    text: str


def steps(name: str) -> list[Step]:
    """The instructions of a Dockerfile, with the defaults of its ARGs filled in."""
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
    """Every call of `pip install`."""
    lines = [line for step in steps(name) if step.word == "RUN" for line in step.text.split("&&")]
    return [line.strip() for line in lines if "pip install" in line]


@dataclass(frozen=True)
class Pin:
    """One package of a file of docker/requirements."""

    name: str
    version: str
    hashes: tuple[str, ...]


def pins(name: str) -> Iterator[Pin]:
    """The packages of docker/requirements/<name>.txt."""
    text = (REPO / f"docker/requirements/{name}.txt").read_text().replace("\\\n", "")
    for line in text.splitlines():
        if line and not line.startswith(("#", "-r ")):
            named, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
            package, _, version = named.split(" ;")[0].partition("==")
            yield Pin(package.strip(), version.strip(), tuple(hashes))


@EACH_FILE
def test_no_release_without_a_digest(name: str) -> None:
    (base,) = [step.text for step in steps(name) if step.word == "FROM"]
    slim = "slim-" if name == "operate" else ""  # stages need wget and a compiler
    assert re.fullmatch(rf"python:3\.11\.\d+-{slim}bookworm@sha256:[0-9a-f]{{64}}", base)
    versions = {
        re.search(r"python:([\d.]+)", step.text)[1] for one in FILES for step in steps(one) if step.word == "FROM"
    }  # type: ignore[index]
    assert len(versions) == 1
    assert versions.pop() in (REPO / "scripts/image_requirements.py").read_text()  # whose markers it decides


@EACH_FILE
def test_every_package_is_installed_by_hash(name: str) -> None:
    *packages, own = pip_lines(name)
    assert len(packages) == 3
    for line in packages:
        assert "--require-hashes --no-deps" in line and "--no-cache-dir" in line and " -r requirements/" in line
    build, stage, bill = packages
    assert build.endswith("build.txt") and "--no-build-isolation" in stage  # what builds archives has a hash too
    assert bill.startswith("/tmp/sbom/bin/pip") and bill.endswith("sbom.txt")
    assert own == "pip install --no-cache-dir --no-deps --no-build-isolation ."
    assert [step.text for step in steps(name) if "pip install" in step.text][-1].endswith("&& pip check")


@EACH_FILE
def test_runs_as_a_user_in_an_environment_of_its_own(name: str) -> None:
    found = steps(name)
    user = [step.text for step in found if step.word == "USER"][-1]
    assert user == ("1000:1000" if name == "operate" else "1000:100")  # what the pods run as
    last_root = max((at for at, step in enumerate(found) if step.word == "USER" and step.text == "root"), default=-1)
    assert not [step for step in found[: last_root + 1] if step.word == "COPY"]
    # A base's own packages are not ours to check (finding A6).
    (made,) = [at for at, step in enumerate(found) if "python3 -m venv /opt/kit19/venv" in step.text]
    (path,) = [at for at, step in enumerate(found) if step.word == "ENV" and "PATH=/opt/kit19/venv/bin:" in step.text]
    assert made < path < next(at for at, step in enumerate(found) if "pip install" in step.text)
    assert found[-1].word == "CMD" and json.loads(found[-1].text)[0] == "kit19"


@EACH_FILE
def test_a_change_of_the_code_leaves_the_layer_of_the_packages(name: str) -> None:
    found = steps(name)
    installs = [at for at, step in enumerate(found) if "--require-hashes" in step.text]
    for at, step in enumerate(found):
        if step.word == "COPY" and at < max(installs):
            assert all("requirements/" in word for word in step.text.split()[1:])
    code = next(at for at, step in enumerate(found) if step.word == "COPY" and "kit19_ray" in step.text)
    assert max(installs) < code


@EACH_FILE
def test_nothing_secret_and_nothing_floating(name: str) -> None:
    text = (REPO / f"docker/Dockerfile.{name}").read_text()
    assert ":latest" not in text and "curl" not in text and "apt-get" not in text and "ADD " not in text
    for step in steps(name):
        if step.word in ("ARG", "ENV"):
            assert not re.search(r"secret|token|password|key", step.text, re.IGNORECASE), step
    for image in ("operate",) if name == "operate" else ("train", "serve"):
        assert f"kit19-ray/{image}:{__version__}" in text  # the name the charts default to


@EACH_FILE
@pytest.mark.parametrize("stage", [one for one in STAGES if one != "operate"])
def test_copies_only_what_the_context_has(name: str, stage: str) -> None:
    ignored = [line for line in (REPO / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"  # all but what is named
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    for step in steps(name):
        if step.word == "COPY":
            *sources, _ = [word for word in step.text.split() if not word.startswith("--")]
            for source in sources:
                source = source.replace("/train.txt", f"/{stage}.txt")
                assert (REPO / source).exists(), source
                assert any(source == one or source.startswith(f"{one}/") for one in allowed), source
    assert not any(fnmatch.fnmatch(".git", pattern) for pattern in allowed)


def test_charts_and_samples_name_these_images() -> None:
    run = yaml.safe_load((REPO / "helm/kit19-run/values.yaml").read_text())
    operator = yaml.safe_load((REPO / "helm/kit19-operator/values.yaml").read_text())
    images = {run["images"]["train"], run["images"]["serve"], operator["image"]["name"]}
    assert images == {f"kit19-ray/{name}:{__version__}" for name in ("train", "serve", "operate")}


@pytest.mark.parametrize("file", REQUIREMENTS, ids=lambda file: file.stem)
def test_each_package_has_one_version_and_hashes(file: Path) -> None:
    found = list(pins(file.stem))
    assert found and len({pin.name for pin in found}) == len(found)
    for pin in found:
        assert pin.hashes and all(re.fullmatch("[0-9a-f]{64}", one) for one in pin.hashes), pin
    # Torch is apart, so that an image without GPUs takes another file for it.
    assert ("-r torch.txt" in file.read_text()) == (file.stem in ("train", "serve"))


@pytest.mark.parametrize("name", ["data", "train", "serve", "operate", "torch-cuda", "torch-cpu"])
def test_the_versions_are_those_of_the_constraints(name: str) -> None:
    """`python -m scripts.image_requirements` writes the files again after a change of constraints.txt."""
    versions = {pin.name: pin.version.removesuffix("+cpu") for pin in pins(name)}
    assert versions == {package: PINS[package] for package in versions}


def test_vllm_s_image_has_our_ray_and_torch() -> None:
    versions = {pin.name: pin.version for pin in pins("vllm")}
    assert versions["ray"] == RAY_VERSION == PINS["ray"] and versions["torch"] == PINS["torch"]
    assert {"vllm", "transformers", "fastapi"} <= versions.keys()


def test_the_driver_that_the_cuda_wheels_need_is_told() -> None:
    versions = {pin.name: pin.version for pin in pins("torch-cuda")}
    assert versions["torch"] in TORCH_CPU  # both builds of one release
    driver = OLDEST_DRIVER[versions["cuda-toolkit"].split(".")[0]]
    for file in ("docker/Dockerfile.stage", "docs/how-to/images.md", "docs/how-to/kubernetes.md"):
        assert f"driver {driver}" in (REPO / file).read_text().replace("| NVIDIA driver | ", "driver "), file


@pytest.mark.skipif(sys.version_info[:2] != (3, 11) or sys.platform != "linux", reason="the images have Python 3.11")
@pytest.mark.parametrize("name", ["data", "train", "serve", "operate"])
def test_the_files_have_all_that_the_extras_need(name: str) -> None:
    """`--no-deps` installs what is listed: no more and no less than what the installed packages ask for."""
    needed = set(_closure("kit19-ray", frozenset(STAGES[name]), set()))
    cuda = {one for one in needed if one.startswith(TORCH)}
    listed = {pin.name for pin in pins(name)}
    if "torch" in needed:
        assert not listed & cuda
    missing = needed - cuda - listed - {"kit19-ray", *BUILD}
    assert not missing, f"{sorted(missing)}: run `python -m scripts.image_requirements`"
    assert not listed - needed, f"{sorted(listed - needed)}: run `python -m scripts.image_requirements`"


def _closure(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """The installed packages that one needs, itself among them."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    yield name
    for line in _own(extras) if name == "kit19-ray" else metadata.requires(name) or []:
        requirement = Requirement(line)
        if any(requirement.marker is None or requirement.marker.evaluate({"extra": one}) for one in ("", *extras)):
            yield from _closure(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


def _own(extras: frozenset[str]) -> list[str]:
    """What this checkout's extras ask for; the environment may be another's."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(line for one in extras for line in project["optional-dependencies"][one])]
