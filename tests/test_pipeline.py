"""`kit19 run`, whole: what `make demo` does, on two tasks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit19_ray import pipeline
from kit19_ray.artifacts import manifest
from kit19_ray.config import loading
from kit19_ray.errors import ServeError
from kit19_ray.io import storage

pytestmark = pytest.mark.ray
DEMO = Path(__file__).parents[1] / "configs" / "demo.yaml"
SMALL = ["data.tasks=[nsmc,apeach]", "data.quota=30", "data.validation=4", "train.model.hidden_size=32"]


def run(root: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kit19_ray", "run", "--config", str(DEMO), f"root={root}", *SMALL, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def check(done: subprocess.CompletedProcess[str]) -> str:
    """The evaluate prefix of a run that went well, with every part in place."""
    assert done.returncode == 0, done.stderr
    uri = done.stdout.strip().splitlines()[-1]
    scored = manifest.require(uri, "evaluate")
    trained = manifest.require(scored["model"], "train")
    export = {f.path for f in storage.list_files(storage.join(scored["model"], trained["export"]))}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= export
    assert trained["validation_loss"] < trained["validation_loss_first"]
    scores = json.loads(storage.read_text(storage.join(uri, "scores.json")))
    assert scores["tasks"]["kobest_copa"]["n"] == 24 and set(scores["held_out"]) == {"nsmc", "apeach"}
    assert "KIT 1.3B" in storage.read_text(storage.join(uri, "report.md"))
    printed = done.stdout.splitlines() + done.stderr.splitlines()
    noise = [line for line in printed if "Warning" in line or "(raylet)" in line or "Traceback" in line]
    assert noise == []
    return uri


def test_the_whole_run_answers_a_question_and_is_a_no_op_the_second_time(tmp_path: Path) -> None:
    first = run(str(tmp_path), "--ask", "다음 영화 리뷰는 긍정인가요? 정말 재미있다.")
    uri = check(first)
    assert "question" in first.stderr and "answer" in first.stderr
    again = run(str(tmp_path), "--no-serve")
    assert check(again) == uri
    for said in ("is built already", "is trained already", "is scored already"):
        assert said in again.stderr


def test_a_model_below_its_gate_is_not_served(tmp_path: Path) -> None:
    scored = f"file://{tmp_path}/evaluate-1"
    storage.write_text(f"{scored}/scores.json", json.dumps({"tasks": {"kobest_copa": {"acc": 0.5}}, "held_out": {}}))
    words = [f"root=file://{tmp_path}", "evaluate.gate=[{task: kobest_copa, min: 0.6}]"]
    with pytest.raises(
        ServeError, match=r"kobest_copa acc is 0\.5000, the gate asks for 0\.6; the model is not served"
    ):
        pipeline._pass_gate(loading.load(None, words), scored)
    pipeline._pass_gate(loading.load(None, words[:1]), scored)


@pytest.mark.s3
def test_the_whole_run_on_s3(s3_root: str) -> None:
    uri = check(run(s3_root, "--no-serve"))
    assert uri.startswith("s3://")
    lines = storage.read_text(storage.join(manifest.require(uri, "evaluate")["model"], "metrics.jsonl")).splitlines()
    assert json.loads(lines[-1])["progress"] == 1.0


def test_training_without_data_says_what_to_run_first(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kit19_ray", "train", "--config", str(DEMO), f"root={tmp_path}", *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "run `kit19 data`" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["evaluate", "serve"])
def test_a_model_that_does_not_exist_is_named(tmp_path: Path, verb: str) -> None:
    command = [sys.executable, "-m", "kit19_ray", verb, "--config", str(DEMO), f"root={tmp_path}", *SMALL]
    done = subprocess.run(
        [*command, f"{verb}.model=/no/such/model", "evaluate.held_out=false"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "/no/such/model" in done.stderr and "Traceback" not in done.stderr
