"""What the operator reads of a run from the storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import output_pointer
from kit19_ray.io import s3, storage
from kit19_ray.operate.api.spec import KitRunSpec, Stage, parse
from kit19_ray.operate.controller import stage_output
from kit19_ray.operate.manifests import naming
from kit19_ray.operate.manifests.naming import RunRef

RUN = RunRef("demo", "default", "1")


@pytest.fixture
def spec(tmp_path: Path) -> KitRunSpec:
    return parse({"config": {"root": f"file://{tmp_path}"}, "images": {"train": "kit19:1"}}, "demo")


def leave(spec: KitRunSpec, monkeypatch: pytest.MonkeyPatch, stage: Stage, uri: str, finished: bool) -> None:
    """What the stage itself does."""
    monkeypatch.setenv(output_pointer.VARIABLE, naming.pointer_uri(RUN, spec, stage))
    output_pointer.write(stage, uri, finished)


def test_before_a_stage_left_anything(spec: KitRunSpec) -> None:
    report = stage_output.read(RUN, spec, "train")
    assert report.uri is None and not report.unreadable and "left no pointer at file://" in (report.error or "")


def test_the_newest_of_each_metric(spec: KitRunSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/train-1"
    leave(spec, monkeypatch, "train", uri, finished=False)
    assert stage_output.read(RUN, spec, "train").metrics == {}
    lines: list[dict[str, Any]] = [
        {"step": 10, "steps": 40, "loss": 3.0, "validation_loss": 2.5, "progress": 0.25, "lr": 1.0},
        {"step": 20, "steps": 40, "loss": 2.0, "progress": 0.5, "eta_seconds": 9.5, "tokens_per_second": 100.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "lo'  # the last is being written
    storage.write_text(f"{uri}/metrics.jsonl", text)
    report = stage_output.read(RUN, spec, "train")
    assert report.uri == uri and report.metrics == {
        "step": 20,
        "steps": 40,
        "loss": 2.0,
        "validation_loss": 2.5,
        "progress": 0.5,
        "eta_seconds": 9.5,
        "tokens_per_second": 100.0,
    }


def test_the_scores_of_a_finished_evaluation(spec: KitRunSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/evaluate-1"
    leave(spec, monkeypatch, "evaluate", uri, finished=True)
    assert stage_output.read(RUN, spec, "evaluate").unreadable
    storage.write_text(f"{uri}/scores.json", json.dumps({"tasks": {"kobest_wic": {"acc": 0.5}}, "held_out": {}}))
    assert stage_output.read(RUN, spec, "evaluate").scores == {"kobest_wic": {"acc": 0.5}}


@pytest.mark.parametrize("text", ["{", "[]", '{"tasks": 1}', '{"tasks": {"a": 1}}'])
def test_scores_that_are_not_scores(
    spec: KitRunSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    uri = f"file://{tmp_path}/evaluate-1"
    leave(spec, monkeypatch, "evaluate", uri, finished=True)
    storage.write_text(f"{uri}/scores.json", text)
    report = stage_output.read(RUN, spec, "evaluate")
    assert (
        report.unreadable
        and report.scores is None
        and "what the evaluate stage left is not readable" in str(report.error)
    )


@pytest.mark.s3
def test_the_run_s_own_credentials_are_used(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"endpoint": s3.endpoint(), "region": "us-east-1"}
    own = parse({"config": {"root": s3_root}, "images": {"train": "a"}, "storage": asked}, "demo")
    leave(own, monkeypatch, "data", f"{s3_root}/data-1", finished=True)
    secret = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with s3.override_credentials(stage_output.variables(own, secret)):
        assert stage_output.read(RUN, own, "data").uri == f"{s3_root}/data-1"
    elsewhere = parse(
        {"config": {"root": s3_root}, "images": {"train": "a"}, "storage": {"endpoint": "http://127.0.0.1:1"}}, "demo"
    )
    with s3.override_credentials(stage_output.variables(elsewhere, secret)):
        report = stage_output.read(RUN, elsewhere, "data")
    assert report.unreadable and "at http://127.0.0.1:1" in (report.error or "")
