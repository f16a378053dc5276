"""The docs name only what is there: pages, links, verbs, keys, messages; and the tutorial's files work."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.cli.main import app
from kit19_ray.config import loading, reference
from kit19_ray.data import examples
from kit19_ray.data.examples import Planned
from kit19_ray.data.inputs import collect
from kit19_ray.data.records import Record, to_record
from kit19_ray.io import storage
from kit19_ray.sources.readers.base import SourceRow

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README, README_KO = ROOT / "README.md", ROOT / "README.ko.md"
PAGES = sorted(DOCS.rglob("*.md"))
WRITTEN = [page for page in PAGES if page.name not in ("config.md", "templates.md", "cli.md")]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation_and_there() -> None:
    def files(node: Any) -> list[str]:
        if isinstance(node, str):
            return [node]
        return [f for child in (node.values() if isinstance(node, dict) else node) for f in files(child)]

    nav = files(yaml.safe_load(text(ROOT / "mkdocs.yml"))["nav"])
    assert sorted(nav) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES), "mend `nav` in mkdocs.yml"


@pytest.mark.parametrize("page", [*WRITTEN, README, README_KO, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text(page)):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_the_readme_is_short_and_the_korean_one_in_step() -> None:
    english, korean = text(README), text(README_KO)
    assert len(english.splitlines()) < 120

    def skeleton(content: str) -> list[Any]:
        prose = re.sub(r"```.*?^```", "", content, flags=re.MULTILINE | re.DOTALL)
        blocks = re.findall(r"^```console\n.*?^```", content, re.MULTILINE | re.DOTALL)
        shapes = re.findall(r"^(#+|\|)", prose, re.MULTILINE)  # headings and rows, in order
        links = [link for link in re.findall(r"\]\(([^)]+)\)", prose) if not link.startswith("README")]
        paragraphs = [len(part.split("\n\n")) for part in re.split(r"^## .*$", prose, flags=re.MULTILINE)]
        return [blocks, shapes, links, paragraphs, sorted(re.findall(r"`[^`]+`", prose)), re.findall(r"3\.\d+", prose)]

    for ours, theirs in zip(skeleton(english), skeleton(korean), strict=True):
        assert ours == theirs, "README.md and README.ko.md say different things: mend the other one too"


def test_the_command_lines_page_is_what_the_command_line_says() -> None:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "scripts" / "cli_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert text(DOCS / "reference" / "cli.md") == module.page(), (
        "write it anew: python scripts/cli_reference.py > docs/reference/cli.md"
    )


@pytest.mark.parametrize("page", [*WRITTEN, README, README_KO], ids=lambda page: page.name)
def test_verbs_keys_and_configs_exist(page: Path) -> None:
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    verbs |= {group.name for group in app.registered_groups}
    keys = {key.path for key in reference.config_keys()}
    sections = {path.rpartition(".")[0] for path in keys}
    content = text(page)
    assert set(re.findall(r"(?:\$ |`)kit19 ([a-z]+)", content)) <= verbs
    named = re.findall(r"(?<![\w./-])((?:data|train|evaluate|serve)\.[a-z_]+(?:\.[a-z_]+)?)(?![\w/(-])", content)
    unknown = {name for name in named if name not in keys | sections and not name.endswith((".py", ".md"))}
    assert unknown == set()
    for name in re.findall(r"configs/[\w.-]+\.yaml", content):
        assert (ROOT / name).is_file(), name


def test_the_runbooks_messages_are_the_codes() -> None:
    sources = "\n".join(text(path) for path in (ROOT / "kit19_ray").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*(?:\+ )?f?"', "", sources)  # a message that goes on over lines
    rows = re.findall(r"^\| `([^`]+)` \|", text(DOCS / "how-to" / "runbook.md"), re.MULTILINE)
    assert len(rows) > 30
    for message in rows:
        for piece in message.split("…"):
            assert piece.strip(" ,;:") in joined, message


def _blocks(page: Path) -> dict[str, str]:
    """The tutorial's files by their titles."""
    return dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', text(page), re.MULTILINE | re.DOTALL))


def test_the_tutorials_task_builds_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in _blocks(DOCS / "tutorial" / "index.md").items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    config = loading.load("my/shop.yaml")
    assert config.root == storage.normalise(tmp_path / "my" / "runs")
    inputs = collect(config)
    task = inputs.tasks["shop_reviews"]
    (file,) = inputs.files["shop_reviews"]
    found = [to_record(task, file.path, row) for row in task.source.read(file) if isinstance(row, SourceRow)]
    records = [record for record in found if isinstance(record, Record)]
    assert len(records) == 12
    planned = [Planned(r, t, n) for r in records for n, t in enumerate(examples.templates(task, r, 19, "train"))]
    made = [examples.render(task, p, "train", 19) for p in planned]
    assert {row["kind"] for row in made} == {"closed", "open"}
    assert all("만족" in row["output"] or "불만" in row["output"] for row in made)


@pytest.mark.slow
def test_make_generated_changes_nothing(tmp_path: Path) -> None:
    """The command itself, in a copy: tests beside this hold each file to the code, this one the target."""
    copy = tmp_path / "copy"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)  # kit19_ray/configs is a link
    sum_ = subprocess.run(["cksum"], input=str(copy), capture_output=True, text=True, check=True).stdout.split()[0]
    installed = f"{sys.prefix}/.kit19-{sum_}"  # `make` finds the pinned packages installed, as they are here
    done = subprocess.run(
        ["make", "-o", installed, "generated", f"VENV={sys.prefix}"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = [path for path in copy.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    changed = [path for path in written if path.read_bytes() != (ROOT / path.relative_to(copy)).read_bytes()]
    assert len(written) > 500 and changed == []


def test_ci_runs_the_targets_that_contributing_names() -> None:
    content, ci = text(ROOT / "CONTRIBUTING.md"), text(ROOT / ".github" / "workflows" / "ci.yml")
    run = set(re.findall(r"- run: make ([a-z-]+)", ci))
    assert {"install", "lint", "test-fast", "docs"} <= run
    assert run <= set(re.findall(r"(?:\$ |`)make ([a-z-]+)", content))
    assert re.findall(r"- run: bash (\S+)", ci) == [".ci/run"] and "`.ci/run`" in content
    makefile = text(ROOT / "Makefile")
    linters = [line.split("$(BIN)/")[1].split('"')[0] for line in makefile.splitlines() if "|| red=1" in line]
    assert set(linters) == {"ruff", "mypy", "lint-imports"}  # what `make lint` is, here and in CI


def test_contributings_commands_paths_and_answers_are_there() -> None:
    content = text(ROOT / "CONTRIBUTING.md")
    makefile = text(ROOT / "Makefile")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    asked = set(re.findall(r"(?:\$ |`)make ([a-z-]+)", content))
    assert {"install", "test", "test-fast", "lint", "generated", "docs", "coverage"} <= asked <= targets
    for target in asked:  # what each would run; `make -n` fails on a target or a variable that is not there
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    paths = re.findall(r"(?:`|TESTS=)((?:kit19_ray|tests|docs|configs|scripts)/[\w./-]*)", content)
    assert len(paths) > 10
    for path in paths:
        assert (ROOT / path).exists(), path
    answers = re.findall(r"^\| .*\? \| `(kit19_ray/\S+)` \|$", content, re.MULTILINE)
    assert len(answers) == len(set(answers)) == 10
