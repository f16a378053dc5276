"""The best checkpoint by a named score: chosen in the order of the steps, exported, trained no further than need be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kit19_ray.artifacts import checkpoint, manifest, metrics_log
from kit19_ray.config.train import BestConfig
from kit19_ray.errors import TrainError
from kit19_ray.io import storage
from kit19_ray.train import best, stage
from kit19_ray.train.best import Choice, Score, choose
from kit19_ray.train.candidate_scorer import value, write_model
from kit19_ray.train.candidates import CheckpointCandidates
from tests.train.ranks import run_ranks, spec_of, train

pytestmark = pytest.mark.ranks


def scores(*values: float | None) -> dict[int, Score]:
    return {10 * (n + 1): Score(v) for n, v in enumerate(values)}


ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS = [10, 20, 30, 40, 50]


@pytest.mark.parametrize(
    ("values", "more", "patience", "expected"),
    [
        ((), True, None, Choice([], False)),
        ((0.5, 0.7), True, None, Choice([20, 10], False)),
        ((0.5, 0.7, 0.6, 0.1, 0.2), True, None, Choice([20, 30, 10, 50, 40], True)),
        ((0.5, 0.7, 0.6, 0.1, 0.2), False, None, Choice([40, 50, 10, 30, 20], True)),
        ((0.5, 0.7, 0.6, 0.7), True, 2, Choice([20, 40, 30, 10], True)),  # as good is no better
        ((0.5, 0.7, 0.6), True, 2, Choice([20, 30, 10], False)),
        ((0.5, None, 0.4, None, None), True, 2, Choice([10, 30], True)),  # what has no score costs no patience
        ((None,) * 5, True, None, Choice([], True)),
    ],
)
def test_choice(values: Any, more: bool, patience: int | None, expected: Choice) -> None:
    assert choose(scores(*values), STEPS, more, patience) == expected


def test_a_score_that_came_early_waits_for_those_before_it() -> None:
    known = {10: Score(0.1), 30: Score(0.9)}
    assert choose(known, STEPS, True, 1) == Choice([10], False)
    late = known | {20: Score(0.05)}
    assert choose(late, STEPS, True, 1) == Choice([10, 20], True), "step 30 would not have been trained"


def test_names_of_scores() -> None:
    found = BestConfig(score="kowiki_qa.generation.chrf")
    assert (found.task, found.metric, found.more_is_better) == ("kowiki_qa", "generation.chrf", True)
    assert BestConfig(score="validation_loss").task is None
    assert not BestConfig(score="validation_loss").more_is_better
    assert not BestConfig(score="wikitext.word_perplexity", mode="min").more_is_better
    with pytest.raises(ValidationError, match="neither validation_loss nor <task>.<metric>"):
        BestConfig(score="kobest_copa")
    table = {"kobest_copa": {"acc": 0.5, "macro_f1": 0.4}}
    assert value(table, BestConfig(score="kobest_copa.macro_f1")) == 0.4
    with pytest.raises(TrainError, match="kobest_copa has no macro_f; .*did you mean|kobest_copa has no macro_f"):
        value(table, BestConfig(score="kobest_copa.macro_f"))
    with pytest.raises(TrainError, match="kobest_cop was not scored .did you mean 'kobest_copa'"):
        value(table, BestConfig(score="kobest_cop.acc"))


def test_scored_checkpoints_stay(tmp_path: Path) -> None:
    out = f"file://{tmp_path}"
    for step in (2, 4, 6, 8):
        shard: Any = {"path": "s", "size": 0, "sha256": "", "blocks": []}
        index: Any = {"format": checkpoint.FORMAT, "step": step, "validation_loss": None, "shards": [shard]}
        checkpoint.write_index(out, checkpoint.folder(step, "ab"), index)
    checkpoint.prune(out, 1, 0, {4})
    assert [at.step for at in checkpoint.folders(out)] == [8, 4]


def test_an_interrupted_run_knows_what_was_scored(make_config: Any, data_prefix: str, tmp_path: Path) -> None:
    config = make_config(f"file://{tmp_path}", best={"score": "copa.acc", "every": 4})
    spec = spec_of(config, data_prefix)
    best.write(spec.out, 4, Score(0.5))
    shard: Any = {"path": "s", "size": 0, "sha256": "", "blocks": []}
    index: Any = {"format": checkpoint.FORMAT, "step": 12, "validation_loss": None, "shards": [shard]}
    checkpoint.write_index(spec.out, checkpoint.folder(12, "ab"), index)
    said: list[str] = []
    candidates = CheckpointCandidates(spec, 0, said.append, lambda line: None)
    candidates.begin(12)
    assert best.read(spec.out, 8) == Score(None, "its checkpoint is gone")
    assert said == ["the checkpoint of step 8 has no copa.acc: its checkpoint is gone"]
    assert [at.step for at in candidates._ready] == [12]
    assert candidates.spared() == {4, 12, 16}
    assert candidates.choice() == Choice([4], False)


def weights(folder: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    path = Path(storage.filesystem(storage.join(folder, "model.safetensors"))[1])
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def test_training_ends_early_and_the_best_step_is_exported(make_config: Any, data_prefix: str, tmp_path: Path) -> None:
    """The loss falls, and `max` calls that worse: the first one is the best."""
    import torch

    settings = {"score": "validation_loss", "mode": "max", "every": 2, "patience": 2}
    spec = spec_of(make_config(f"file://{tmp_path}", best=settings, keep_checkpoints=1), data_prefix)
    made, _ = run_ranks(2, train, spec)
    assert made["best"]["step"] == 2 and made["best"]["last"] == 6
    assert list(made["best"]["scores"]) == ["2", "4", "6"]
    assert made["best"]["score"] == made["validation_loss"]
    assert max(line["step"] for line in metrics_log.read(spec.out)) == 6
    (at,) = [at for at in checkpoint.folders(spec.out) if at.step == 2]
    write_model(tmp_path / "of-step-2", spec, at, "float32")
    exported, expected = weights(storage.join(spec.out, "export")), weights(f"file://{tmp_path}/of-step-2")
    assert exported.keys() == expected.keys()
    assert all(torch.equal(exported[name], expected[name]) for name in exported)
    events = [line["text"] for line in metrics_log.read(spec.out, metrics_log.EVENTS)]
    assert events[-1] == "exports step 2, the best of 3"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it by its old name
@pytest.mark.parametrize(
    ("lora", "keys"),
    [
        ({}, {"workers": 2, "zero_stage": 3}),
        ({"kind": "dora"}, {}),
        ({"kind": "rslora", "targets": ["q_proj", "down_proj"]}, {}),
        ({"quantize": "nf4"}, {}),
    ],
)
def test_of_adapters_the_merged_model_is_scored_that_is_exported(
    lora: dict[str, Any], keys: dict[str, Any], make_config: Any, data_prefix: str, base: str, tmp_path: Path
) -> None:
    """A checkpoint of adapters holds no weight of the model they are on."""
    import torch

    pytest.importorskip("bitsandbytes" if "quantize" in lora else "peft")
    settings = {"score": "validation_loss", "mode": "max", "every": 2, "patience": 1}
    words = {"workers": 1, "model": {"name": base}, "lora": {"rank": 4} | lora, "best": settings} | keys
    spec = spec_of(make_config(f"file://{tmp_path}", **words), data_prefix)
    made, *_ = run_ranks(spec.config.workers, train, spec)
    assert (made["best"]["step"], made["best"]["last"]) == (2, 4)
    found = {at.step: at for at in checkpoint.folders(spec.out)}
    index = checkpoint.read_index(spec.out, found[2])
    assert index is not None and all("lora_" in name for name in index["parameters"])
    for step in (2, 4):
        write_model(tmp_path / f"of-step-{step}", spec, found[step], "float32")
    scored, later = (weights(f"file://{tmp_path}/of-step-{step}") for step in (2, 4))
    exported, untrained = weights(storage.join(spec.out, "export")), weights(f"file://{base}")
    assert exported.keys() == scored.keys() == untrained.keys()
    assert all(torch.equal(exported[name], scored[name]) for name in exported)
    adapted = [name for name in exported if not torch.equal(exported[name], untrained[name])]
    assert {name.split(".")[-2] for name in adapted} == set(lora.get("targets", ADAPTED))
    assert all(not torch.equal(exported[name], later[name]) for name in adapted)


class Grades:
    """Grades the models by turns, and keeps their weights."""

    def __init__(self, folder: Path, grades: dict[int, float | str]) -> None:
        self.folder, self.grades = folder, grades

    def require(self) -> None:
        (self.folder / "required").touch()

    def __call__(self, model: str, root: str) -> str:
        from kit19_ray.lm import pretrained

        step = int(model.rsplit("/", 1)[1].partition("-")[0])
        pretrained.load_causal_lm(model)
        pretrained.load_tokenizer(model)
        storage.write_bytes(
            f"file://{self.folder}/{step}/model.safetensors",
            storage.read_bytes(storage.join(model, "model.safetensors")),
        )
        grade = self.grades[step]
        if isinstance(grade, str):
            raise RuntimeError(grade)
        out = storage.join(root, f"evaluate-{step}")
        storage.write_text(storage.join(out, "scores.json"), json.dumps({"tasks": {"copa": {"acc": grade}}}))
        return out


@pytest.mark.ray
def test_checkpoints_are_scored_beside_the_training(
    ray_cluster: None, make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    import torch

    grades = Grades(tmp_path / "grades", {4: 0.5, 8: 0.7, 12: "no actor came", 16: 0.6})
    grades.folder.mkdir()
    config = make_config(
        f"file://{tmp_path}/runs", workers=1, keep_checkpoints=1, best={"score": "copa.acc", "every": 4}
    )
    uri = stage.run(config, data_prefix, grades)
    made = manifest.require(uri, "train")
    assert made["best"] == {
        "name": "copa.acc", "step": 8, "last": 16, "score": 0.7, "scores": {"4": 0.5, "8": 0.7, "12": None, "16": 0.6},
    }  # fmt: skip
    assert (grades.folder / "required").exists() and made["steps"] == 16
    exported, scored = weights(storage.join(uri, "export")), weights(f"file://{grades.folder}/8")
    assert all(torch.equal(exported[name], scored[name]) for name in scored)
    assert not torch.equal(*(weights(f"file://{grades.folder}/{n}")["embed_out.weight"] for n in (8, 16)))
    assert storage.list_files(storage.join(uri, "candidates")) == []
    lines = {line["score_step"]: line["score"] for line in metrics_log.read(uri) if "score" in line}
    assert lines == {4: 0.5, 8: 0.7, 16: 0.6}
    events = [line["text"] for line in metrics_log.read(uri, metrics_log.EVENTS)]
    assert "the checkpoint of step 12 has no copa.acc: no actor came" in events
    assert events[-1] == "exports step 8, the best of 3"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it by its old name
@pytest.mark.ray
def test_adapters_are_scored_on_their_base_beside_the_training(
    ray_cluster: None, make_config: Any, data_prefix: str, base: str, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel

    from kit19_ray.lm import pretrained

    grades = Grades(tmp_path / "grades", {4: 0.5, 8: 0.7, 12: 0.6, 16: 0.6})
    grades.folder.mkdir()
    words = {"workers": 1, "keep_checkpoints": 1, "model": {"name": base}, "lora": {"rank": 4}}
    config = make_config(f"file://{tmp_path}/runs", **words, best={"score": "copa.acc", "every": 4, "patience": 1})
    uri = stage.run(config, data_prefix, grades)
    made = manifest.require(uri, "train")
    assert (made["best"]["step"], made["best"]["score"]) == (8, 0.7)
    assert all(value is not None for value in made["best"]["scores"].values())
    scored = {step: weights(f"file://{grades.folder}/{step}") for step in (4, 8)}
    exported, untrained = weights(storage.join(uri, "export")), weights(f"file://{base}")
    name = "model.layers.1.mlp.down_proj.weight"
    assert not torch.equal(scored[4][name], untrained[name]) and not torch.equal(scored[8][name], scored[4][name])
    assert all(torch.equal(exported[name], scored[8][name]) for name in untrained)
    adapter = storage.filesystem(storage.join(uri, "adapter"))[1]
    alone = PeftModel.from_pretrained(pretrained.load_causal_lm(base), adapter).merge_and_unload().state_dict()
    assert all(torch.equal(alone[name], exported[name]) for name in exported), "the adapter is the best step's too"
    assert storage.list_files(storage.join(uri, "candidates")) == []


def test_a_task_needs_somebody_who_scores(
    ray_cluster: None, make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    config = make_config(f"file://{tmp_path}", workers=1, best={"score": "copa.acc"})
    with pytest.raises(TrainError, match="nothing was given to score it with"):
        stage.run(config, data_prefix)
