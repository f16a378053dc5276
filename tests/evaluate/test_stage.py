from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kit19_ray.artifacts import manifest, sample_file
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
        "acc", "acc_norm", "macro_f1", "macro_f1_norm", "n", "num_fewshot", "stderr", "interval", "version", "prompts",
    }  # fmt: skip
    assert scores["held_out"]["nsmc"]["n"] == 4
    assert scores["leaks"] == {task: {"status": "unknown"} for task in ("kobest_copa", "kobest_hellaswag")}
    kept = list(sample_file.read(uri))
    assert [(s["section"], s["task"]) for s in kept] == (
        [("tasks", "kobest_copa")] * 3 + [("tasks", "kobest_hellaswag")] * 3 + [("held_out", "nsmc")] * 4
    )
    assert all(len(s["choices"]) == len(s["loglikelihoods"]) for s in kept)
    assert kept[-1]["template"] == "t" and kept[-1]["prompt"].startswith("긍정인가요?")
    assert not storage.exists(storage.join(uri, "unfinished"))
    outcomes = json.loads(storage.read_text(storage.join(uri, "outcomes.json")))
    assert set(outcomes["held_out"]["nsmc"]["accuracy"]) == {f"nsmc-{i}" for i in range(4)}
    for task, metric in (("kobest_copa", "acc"), ("kobest_hellaswag", "acc"), ("kobest_hellaswag", "acc_norm")):
        own = outcomes["tasks"][task][metric]
        assert set(own) == {"0", "1", "2"} and sum(own.values()) / 3 == pytest.approx(scores["tasks"][task][metric])
    assert {"kit19-ray", "lm-eval", "ray", "torch", "transformers"} <= set(scores["versions"])
    assert "not comparable" in storage.read_text(storage.join(uri, "report.md"))
    made = manifest.require(uri, "evaluate")
    assert made["model"] == str(tiny_model) and made["versions"] == scores["versions"]
    assert set(made["model_identity"]) >= {"config.json", "model.safetensors"}
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


def test_a_model_alone_needs_nothing_of_the_data_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kit19_ray import pipeline
    from kit19_ray.config import loading

    asked: list[Any] = []
    monkeypatch.setattr(stage, "run", lambda config, model, data: asked.append((model, data)) or f"file://{tmp_path}/e")
    words = [f"root={tmp_path}", "evaluate.model=organisation/model", "evaluate.held_out=false"]
    pipeline.evaluate(loading.load(None, words))  # its root has no sources folder
    assert asked == [("organisation/model", None)]
    with pytest.raises(UserError, match="missing"):
        pipeline.evaluate(loading.load(None, [*words[:2], "evaluate.held_out=true"]))


def test_leak_status_by_the_manifest_of_the_models_data(tmp_path: Path) -> None:
    data, train = f"file://{tmp_path}/data-1", f"file://{tmp_path}/train-1"
    built: dict[str, Any] = {
        "stage": "data",
        "tasks": {"nsmc": {"dropped": {"contaminated_kobest_copa": 2, "empty_text": 9}}, "kobest_copa": {
            "dropped": {"contaminated_kobest_copa": 6}}},
        "decontamination": {"sets": {"kobest_copa": {"test.tsv": "ab"}, "klue_sts": {}}, "absent": ["klue_ynat"]},
    }  # fmt: skip
    manifest.commit(data, built)
    manifest.commit(train, {"stage": "train", "data": data})
    asked = ["kobest_copa", "klue_sts", "klue_ynat", "haerae_history"]
    assert stage.leaks(train, asked) == {
        "kobest_copa": {"status": "cleaned", "rows": 8},
        "klue_sts": {"status": "cleaned", "rows": 0},
        "klue_ynat": {"status": "absent"},
        "haerae_history": {"status": "not cleaned"},
    }
    manifest.commit(data, {**built, "ablation": "with-test"})
    assert stage.leaks(train, ["kobest_copa"]) == {"kobest_copa": {"status": "trained on"}}
    assert stage.leaks("organisation/model", ["kobest_copa"]) == {"kobest_copa": {"status": "unknown"}}


class Dying:
    """A backend that is cut off after some requests, and counts what it is asked."""

    can_score = True

    def __init__(self, backend: Any, after: int) -> None:
        self.backend, self.after = backend, after
        self.asked: list[Any] = []

    def loglikelihoods(self, requests: Any, what: str, on_results: Any = None) -> list[tuple[float, bool]]:
        out = []
        for number, request in enumerate(requests):
            if len(self.asked) >= self.after:
                raise KeyboardInterrupt
            self.asked.append((tuple(request[0]), tuple(request[1])))
            (result,) = self.backend.loglikelihoods([request], what)
            out.append(result)
            on_results([number], [result])
        return out


@pytest.mark.ray
def test_an_evaluation_that_was_cut_off_goes_on(
    tiny_model: Path, configured: Any, ray_cluster: None, tmp_path: Path
) -> None:
    from kit19_ray.evaluate.actors import ScorerPool
    from kit19_ray.evaluate.evaluation import Evaluation
    from kit19_ray.evaluate.ray_lm import RayLM
    from kit19_ray.lm import pretrained

    config = configured("evaluate.limit=4", "evaluate.tasks=[kobest_copa,kobest_wic]", "evaluate.cpus_per_worker=1")
    tokenizer = pretrained.load_tokenizer(str(tiny_model))
    pool = ScorerPool(str(tiny_model), config.evaluate)
    asked: list[Any] = []
    try:
        whole = Evaluation(config, RayLM(pool, tokenizer, 192), f"file://{tmp_path}/whole")
        whole.harness(config.evaluate.tasks)
        for after in (3, 2, 6, 100):  # within the first task, within it again, within the second, to the end
            backend = Dying(pool, after)
            cut = Evaluation(config, RayLM(backend, tokenizer, 192), f"file://{tmp_path}/cut")
            try:
                cut.harness(config.evaluate.tasks)
            except KeyboardInterrupt:
                assert after < 100
            asked += backend.asked
    finally:
        pool.close()
    assert len(asked) == len(set(asked)) == 16, "no question is asked twice"
    for task, entry in whole.tasks.items():
        assert cut.tasks[task] == entry
    assert cut.outcomes == whole.outcomes
