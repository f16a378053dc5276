from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.cli.main import user_error
from kit19_ray.errors import SourceError


def kit19(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kit19_ray", *words], capture_output=True, text=True, timeout=120)


HEAVY = {"ray", "torch", "transformers", "deepspeed", "datasets", "lm_eval", "pandas", "kopf", "matplotlib"}


def imported(words: list[str]) -> set[str]:
    """The heavy packages that a command has loaded when it ends."""
    code = (
        "import sys\nfrom kit19_ray.cli.main import app\n"
        f"try: app({words!r}, standalone_mode=False)\nexcept SystemExit: pass\n"
        f"print(*({HEAVY!r} & set(sys.modules)), sep='\\n', file=sys.__stderr__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stderr.split())


def test_help_imports_nothing_heavy() -> None:
    assert imported(["--help"]) == set()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data"], "root: where the output goes is not set"),
        (["data", "--config", "nowhere.yaml"], "--config nowhere.yaml: no such file"),
        (["data", "root=/tmp/x", "data.quotta=3"], "did you mean 'quota'"),
        (["train", "root=gs://x"], "is not one of file, s3"),
        (["serve"], "serve.model is not set, and without a root there is no trained model"),
        (["serve", "serve.model=/nowhere/model"], "/nowhere/model"),
        (["dta"], "No such command"),
        (["train", "--oops"], "No such option"),
    ],
)
def test_user_mistakes_exit_2_with_one_message(words: list[str], said: str) -> None:
    done = kit19(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr


def test_tasks_lists_all_twenty_and_is_machine_readable() -> None:
    listed = json.loads(kit19("tasks", "--json").stdout)
    assert len(listed) == 20 and len({t["category"] for t in listed}) == 10
    assert all(t["quota"] == 5000 and t["licence"] and t["templates"] >= 3 for t in listed)
    assert kit19("tasks").stdout.count("\n") == 21


def test_a_users_mistake_is_found_through_rays_wrapping() -> None:
    inner = SourceError("file.tsv:3: too few columns")
    outer = RuntimeError("task failed")
    outer.cause = inner  # type: ignore[attr-defined]
    wrapped = ValueError("stage failed")
    wrapped.__cause__ = outer
    assert user_error(wrapped) is inner
    assert user_error(RuntimeError("ours")) is None


def test_plan_says_what_would_happen_and_what_is_missing(tmp_path: Path) -> None:
    small = ["data.sources=samples", "data.tasks=[nsmc]", f"root={tmp_path}", "serve.port=18766"]
    done = kit19("plan", "--json", *small)
    plan = json.loads(done.stdout)
    assert (done.returncode, done.stderr, plan["ready"]) == (0, "", True)
    assert set(plan["stages"]) == {"data", "train", "evaluate", "serve"}
    assert list(tmp_path.iterdir()) == []
    bad = kit19("plan", *small, "train.save_minutes=null")
    assert bad.returncode == 2 and bad.stdout.startswith(f"root      file://{tmp_path}\n")
    assert bad.stderr.startswith("error: 1 thing is missing\n  train.save_every=")


def test_plan_imports_nothing_heavy(tmp_path: Path) -> None:
    assert imported(["plan", "data.sources=samples", f"root={tmp_path}", "serve.port=18767"]) == set()


def test_the_entrypoint_of_a_job_imports_no_verb() -> None:
    code = "import sys, kit19_ray.cli.retry\nassert not {'typer', 'pydantic', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_report_refuses_a_run_that_is_not_finished_and_names_the_nearest(tmp_path: Path) -> None:
    export = f"file://{tmp_path}/train-aaaa/export"
    made = {"stage": "train", "data": f"file://{tmp_path}/data-1", "config": {}, "steps": 0, "export": export}
    losses = {"validation_loss_first": None, "validation_loss": None}
    manifest.commit(f"file://{tmp_path}/train-aaaa", made | losses)
    done = kit19("report", str(tmp_path / "train-aaab"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'train-aaaa'?" in done.stderr and "Traceback" not in done.stderr
    shown = kit19("report", str(tmp_path), "--out", str(tmp_path / "page"))
    assert (shown.returncode, shown.stdout) == (0, f"file://{tmp_path}/page\n")
    assert json.loads(kit19("report", str(tmp_path), "--json").stdout)["runs"][0]["name"] == "train-aaaa"
    assert kit19("report", str(tmp_path)).stdout == (tmp_path / "page" / "report.md").read_text()
    assert "no run is named and no root is set" in kit19("report").stderr
