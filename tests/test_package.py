"""The package as a user gets it: what the archives hold, and what works when the wheel alone is installed."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from kit19_ray import __version__

ROOT = Path(__file__).parents[1]
VERBS = ("config", "fetch", "data", "train", "evaluate", "serve", "run", "plan", "report", "submit", "status", "stop")
_SKIPPED = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "runs", "*.egg-info", "node_modules"
)  # of a working copy; .importlinter and .ci are not needed to build


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built by setuptools from a copy of this checkout."""
    copy = tmp_path_factory.mktemp("package") / "source"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=_SKIPPED)
    out = copy.parent / "dist"
    code = f"from setuptools import build_meta as b; b.build_sdist({str(out)!r}); b.build_wheel({str(out)!r})"
    out.mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def test_the_wheel_holds_what_the_package_reads(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    with zipfile.ZipFile(wheel) as read:
        names = set(read.namelist())
        metadata = email.message_from_bytes(read.read(f"kit19_ray-{__version__}.dist-info/METADATA"))
    tracked = subprocess.run(["git", "ls-files", "kit19_ray", "configs"], cwd=ROOT, capture_output=True, text=True)
    wanted = {
        name if name.startswith("kit19_ray/") else f"kit19_ray/{name}" for name in tracked.stdout.split("\n") if name
    }
    wanted -= {"kit19_ray/configs"}  # the link
    assert {"kit19_ray/py.typed", "kit19_ray/configs/demo.yaml"} <= wanted | names
    assert wanted <= names, "mend package-data in pyproject.toml"
    assert not [name for name in names if not name.startswith(("kit19_ray/", "kit19_ray-"))]
    assert metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra") or []) == {
        "data", "train", "lora", "qlora", "mlflow", "wandb", "evaluate", "serve", "vllm", "operate", "submit", "all",
    }  # fmt: skip
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])


def test_the_source_archive_holds_the_tests_and_what_they_read(archives: Path) -> None:
    (source,) = archives.glob("*.tar.gz")
    with tarfile.open(source) as read:
        names = {name.partition("/")[2] for name in read.getnames()}
    for name in (
        "Makefile", "constraints.txt", "configs/demo.yaml", "tests/conftest.py", "tests/cli/test_main.py",
        "docs/index.md", "helm/kit19-run/Chart.yaml", "docker/Dockerfile.stage", "README.ko.md", "LICENSE",
    ):  # fmt: skip
        assert name in names, name
    assert not [name for name in names if "__pycache__" in name]


@pytest.fixture(scope="session")
def bare(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `kit19` of an environment that holds the wheel and what it requires, no extra."""
    folder = tmp_path_factory.mktemp("bare")
    (wheel,) = archives.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheel], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder / "bin" / "kit19"


def _run(kit19: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KIT19_ROOT")}
    return subprocess.run([kit19, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_every_verb_has_help_without_an_extra(bare: Path, tmp_path: Path) -> None:
    assert _run(bare, tmp_path, "--version").stdout == f"kit19-ray {__version__}\n"
    for words in [[], *([verb] for verb in VERBS), ["operate"], ["tasks"], ["tasks", "list"], ["tasks", "show"]]:
        done = _run(bare, tmp_path, *words, "--help")
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout.startswith("Usage: "), words


@pytest.mark.slow
def test_tasks_config_fetch_and_plan_work_without_an_extra(bare: Path, tmp_path: Path) -> None:
    listed = _run(bare, tmp_path, "tasks")
    assert (listed.returncode, listed.stdout.count("\n")) == (0, 21)
    shown = _run(bare, tmp_path, "tasks", "show", "nsmc", "data.sources=samples")
    assert shown.returncode == 0 and "instruction" in shown.stdout
    config = tmp_path / "demo.yaml"
    config.write_text(_run(bare, tmp_path, "config", "demo").stdout, encoding="utf-8")
    plan = _run(bare, tmp_path, "plan", "--config", "demo.yaml", f"root={tmp_path}", "serve.port=18768")
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.startswith("root ")
    fetch = _run(bare, tmp_path, "fetch", "nsmc", "--dry-run", f"root={tmp_path}")
    assert fetch.returncode == 0 and "ratings_train.txt" in fetch.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("data", ["data"]),
        ("train", ["train"]),
        ("evaluate", ["evaluate"]),
        ("serve", ["serve"]),
        ("evaluate", ["run"]),
        ("submit", ["submit", "data", "--address", "http://127.0.0.1:1"]),
    ],
)
def test_a_verb_whose_extra_is_missing_names_it(bare: Path, tmp_path: Path, extra: str, words: list[str]) -> None:
    done = _run(bare, tmp_path, *words, "data.sources=samples", f"root={tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"needs the extra '{extra}'" in done.stderr
    assert done.stderr.endswith(f"pip install 'kit19-ray[{extra}]'\n")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "words"), [("submit", ["status"]), ("submit", ["stop", "x"]), ("operate", ["operate"])]
)
def test_a_verb_of_clusters_names_its_extra(bare: Path, tmp_path: Path, extra: str, words: list[str]) -> None:
    done = _run(bare, tmp_path, *words)
    assert done.returncode == 2 and done.stderr.endswith(f"pip install 'kit19-ray[{extra}]'\n")
