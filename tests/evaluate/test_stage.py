from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.schemas import EXAMPLE_SCHEMA
from kit19_ray.errors import EvaluateError, UserError
from kit19_ray.evaluate import stage
from kit19_ray.io import storage


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A data prefix with four validation rows."""
    base = tmp_path / "runs" / "data-1"
    (base / "examples").mkdir(parents=True)
    rows = [
        {
            "id": f"nsmc-{i}", "task": "nsmc", "category": "sentiment_analysis", "source": "nsmc",
            "source_id": f"f:{i}", "licence": "CC0", "split": "validation", "template": "t", "kind": "open",
            "instruction": "긍정인가요?",
            "input": f"영화 {i}", "output": ["예", "아니오"][i % 2], "label": i % 2, "candidates": ["예", "아니오"],
            "order": i,
        }
        for i in range(4)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema=EXAMPLE_SCHEMA), base / "examples" / "validation-nsmc.parquet")
    manifest.commit(storage.normalise(base), {"stage": "data", "identity": "x", "prompt": "plain", "seq_len": 96})
    return storage.normalise(base)


@pytest.mark.ray
def test_scores_report_manifest_and_nothing_the_second_time(
    tiny_model: Path, configured: Any, data: str, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate.held_out=true", "evaluate.limit=3", "evaluate.tasks=[kobest_copa,kobest_hellaswag]"]
    uri = stage.run(configured(*words), str(tiny_model), data)
    assert uri.startswith(storage.normalise(configured().root))
    scores = json.loads(storage.read_text(storage.join(uri, "scores.json")))
    assert scores["model"] == str(tiny_model)
    assert scores["limit"] == 3
    assert set(scores["tasks"]["kobest_hellaswag"]) == {
        "acc", "acc_norm", "macro_f1", "n", "num_fewshot", "stderr", "version",
    }  # fmt: skip
    assert scores["held_out"]["nsmc"]["n"] == 4
    assert "correct" not in scores["held_out"]["nsmc"]
    outcomes = json.loads(storage.read_text(storage.join(uri, "outcomes.json")))
    assert set(outcomes["held_out"]["nsmc"]["accuracy"]) == {f"nsmc-{i}" for i in range(4)}
    for task, metric in (("kobest_copa", "acc"), ("kobest_hellaswag", "acc"), ("kobest_hellaswag", "acc_norm")):
        own = outcomes["tasks"][task][metric]
        assert set(own) == {"0", "1", "2"} and sum(own.values()) / 3 == pytest.approx(scores["tasks"][task][metric])
    assert {"kit19-ray", "lm-eval", "ray", "torch", "transformers"} <= set(scores["versions"])
    assert "not comparable" in storage.read_text(storage.join(uri, "report.md"))
    assert manifest.require(uri, "evaluate")["model"] == str(tiny_model)
    assert "Traceback" not in capsys.readouterr().err

    before = {f.path: storage.read_bytes(storage.join(uri, f.path)) for f in storage.list_files(uri)}
    assert stage.run(configured(*words, "evaluate.workers=2"), str(tiny_model), data) == uri
    assert {f.path: storage.read_bytes(storage.join(uri, f.path)) for f in storage.list_files(uri)} == before
    assert "is scored already" in capsys.readouterr().err
    assert storage.exists(storage.join(uri, "manifest.json"))


def test_other_weights_under_the_same_path_are_another_model(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    before = stage.model_identity(str(folder))
    assert before == stage.model_identity(str(tiny_model))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert stage.model_identity(str(folder)) != before


def test_a_train_prefix_is_known_by_its_files(tiny_model: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "train-1"
    shutil.copytree(tiny_model, prefix / "export")
    with pytest.raises(UserError, match="nor a finished train prefix"):
        stage.model_identity(str(prefix))
    manifest.commit(storage.normalise(prefix), {"stage": "train", "export": "export", "files": {"export/x": "ab"}})
    assert stage.model_identity(str(prefix)) == {"export/x": "ab"}


def test_a_model_that_does_not_exist(configured: Any) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        stage.run(configured(), "./no/such/model", None)


def test_an_unfinished_data_prefix(tiny_model: Path, configured: Any, tmp_path: Path) -> None:
    with pytest.raises(EvaluateError, match=r"no manifest\.json, so its validation rows cannot be scored") as caught:
        stage.run(configured("evaluate.held_out=true"), str(tiny_model), storage.normalise(tmp_path))
    assert "evaluate.held_out=false" in caught.value.hint


def test_nothing_to_score(tiny_model: Path, configured: Any) -> None:
    with pytest.raises(EvaluateError, match="nothing to score"):
        stage.run(configured("evaluate.tasks=[]"), str(tiny_model), None)
