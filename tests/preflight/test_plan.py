from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import checkpoint, manifest
from kit19_ray.config.schema import Config
from kit19_ray.errors import UserError
from kit19_ray.evaluate import stage as scoring
from kit19_ray.io import storage
from kit19_ray.preflight import plan, render, sources
from kit19_ray.preflight.findings import Findings
from kit19_ray.train import stage as training
from kit19_ray.utils import machine


def stages(config: Config) -> dict[str, Findings]:
    return {found.name: found for found in plan.make(config).stages}


def said(config: Config) -> str:
    """The message that lists what is missing."""
    with pytest.raises(UserError) as raised:
        plan.make(config).require()
    return str(raised.value)


def test_nothing_is_written_and_everything_is_to_do(config: Config, tmp_path: Path) -> None:
    found = plan.make(config)
    found.require()
    assert [f.state for f in found.stages] == ["to do", "to do", "to do", "to do"]
    data, train, evaluate, _ = found.stages
    assert data.uri is not None and train.uri is None and evaluate.uri is None
    assert (data.facts["tasks"], data.facts["files"], data.facts["examples_at_most"]) == (2, 2, 60)
    assert train.facts["estimated"] and train.facts["rows"] == 75  # 60 examples of 80 tokens in rows of 64
    assert "seconds" not in train.facts
    assert evaluate.facts["documents"]["kobest_copa"] == 24
    assert evaluate.facts["choices"] == 24 * (2 + 2 + 4 + 2 + 2)
    assert list(tmp_path.iterdir()) == []


def test_exact_figures_and_states_as_the_stages_finish(config: Config, finished_data: Any) -> None:
    uri = finished_data(config)
    found = stages(config)
    assert (found["data"].state, found["data"].uri) == ("finished", uri)
    facts = found["train"].facts
    assert not facts["estimated"]
    assert (facts["rows"], facts["steps"], facts["accumulation"], facts["tokens"]) == (66, 9, 2, 9 * 8 * 64)
    out = training.uri(config, uri)
    assert found["train"].uri == out and found["train"].state == "to do"

    for step in (3, 12):
        index = {"format": checkpoint.FORMAT, "step": step, "shards": [{}]}
        checkpoint.write_index(out, checkpoint.folder(step, "a"), index)  # type: ignore[arg-type]
    storage.write_text(storage.join(checkpoint.folder(999, "torn").uri(out), "shard-00000.safetensors"), "")
    storage.write_text(storage.join(out, "metrics.jsonl"), '{"step": 3, "tokens_per_second": 64.0}\n')
    resumed = stages(config)["train"]
    assert resumed.state == "resumable" and resumed.facts["resumes_at_step"] == 12
    checkpoint.discard(out, checkpoint.folder(12, "a"))
    resumed = stages(config)["train"]
    assert resumed.facts["seconds"] == (9 - 3) * 8 * 64 / 64.0 and resumed.facts["seconds_from"] == out

    made = {"stage": "train", "files": {"export/model.safetensors": "0"}, "export": "export", "config": {"model": {}}}
    manifest.commit(out, made)
    found = stages(config)
    assert found["train"].state == "finished" and found["evaluate"].state == "to do"
    scores = found["evaluate"].uri
    identity = scoring.identify(config, out, config.evaluate.tasks, manifest.read(uri))
    assert scores == manifest.stage_uri(config.root, "evaluate", identity)
    manifest.commit(str(scores), {"stage": "evaluate"})
    assert stages(config)["evaluate"].state == "finished"
    assert found["evaluate"].facts["held_out"] == 10


def test_time_comes_from_an_earlier_run_of_the_same_model_only(config: Config, finished_data: Any) -> None:
    finished_data(config)
    run = {"stage": "train", "tokens": 10, "tokens_per_second": 5.0, "config": {"model": {"layers": 9}}}
    manifest.commit(storage.join(config.root, "train-other"), run)
    assert "seconds" not in stages(config)["train"].facts
    same = {"config": {"model": config.train.model.identity()}}
    manifest.commit(storage.join(config.root, "train-same"), run | same)
    manifest.commit(storage.join(config.root, "train-short"), run | same | {"tokens": 1, "tokens_per_second": 1e9})
    facts = stages(config)["train"].facts
    assert facts["seconds"] == 9 * 8 * 64 / 5.0 and facts["seconds_from"].endswith("train-same")


def test_missing_files_are_listed_once_with_where_to_get_them(make_config: Any, tmp_path: Path) -> None:
    config = make_config(f"file://{tmp_path}", data={"sources": None}, evaluate={"tasks": ["kobest_wic"]})
    message = said(config)
    assert message.startswith("3 things are missing\n")
    assert message.count("ratings_train.txt in") == 1 and "https://" in message and "licence: CC0 1.0" in message
    assert "its test split is missing test.tsv" in message
    found = stages(config)
    assert [found[name].state for name in ("data", "train", "evaluate")] == ["unknown"] * 3


def test_missing_files_of_skipped_tasks_are_a_note(make_config: Any, tmp_path: Path, samples: Path) -> None:
    shutil.copytree(samples / "nsmc", tmp_path / "sources" / "nsmc")
    skipping = {"sources": None, "on_missing": "skip", "verify": False}
    config = make_config(f"file://{tmp_path}", data=skipping, evaluate={"tasks": []})
    found = plan.make(config)
    found.require()
    assert found.stages[0].notes == ["left out, their files are missing (data.on_missing=skip): apeach"]


def test_own_data_are_looked_at_as_the_build_does(make_config: Any, tmp_path: Path) -> None:
    mine = {"path": f"{tmp_path}/mine.jsonl", "format": "alpaca", "licence": "CC-BY-NC-4.0"}
    config = make_config(
        f"file://{tmp_path}", data={"datasets": [mine], "splits": {"nmsc": ["train"]}}, evaluate={"tasks": []}
    )
    message = said(config)
    assert message.startswith("2 things are missing\n")
    assert "mine.jsonl: no such file" in message and "data.splits: 'nmsc' is no task of this build" in message
    Path(mine["path"]).write_text('{"instruction": "더하라.", "input": "1, 2", "output": "3"}\n', encoding="utf-8")
    facts = plan.make(make_config(f"file://{tmp_path}", data={"datasets": [mine]})).stages[0].facts
    assert (facts["tasks"], facts["files"], facts["examples_at_most"]) == (3, 3, 90)
    assert [entry["tasks"] for entry in facts["licences"] if entry["source"] == "mine"] == [["mine"]]


def test_every_mistake_is_in_one_message(make_config: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = make_config(
            f"file://{tmp_path}",
            data={"prompt": "kulm", "quotas": {"nmc": 3}},
            train={"batch_size": 9, "workers": 10},
            evaluate={"tasks": [], "held_out": False, "model": "/no/such/model"},
            serve={"port": taken.getsockname()[1]},
        )
        message = said(config)
    assert "kulm" in message and "did you mean 'kullm'" in message
    assert "train.workers=10 is more than train.batch_size=9" in message
    assert "there is nothing to score" in message and "/no/such/model" in message
    assert "serve.port: cannot listen on 127.0.0.1" in message


def test_what_the_data_prefix_lacks(config: Config, finished_data: Any, make_config: Any, tmp_path: Path) -> None:
    uri = finished_data(config)
    built = manifest.require(uri, "data")
    manifest.commit(uri, built | {"splits": {"train": built["splits"]["train"]}})
    assert f"{uri} has no validation rows" in said(config)
    folder = tmp_path / "base"
    folder.mkdir()
    keys = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt_neox", "vocab_size": 200} | keys))
    named = make_config(config.root, train={"data": uri, "model": {"name": str(folder)}})
    message = said(named)
    assert "knows 200 tokens, the data prefix was built with a tokenizer of 300" in message
    assert stages(named)["data"].state == "not needed"
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    assert "no formula for a model of type 'mamba': no memory estimate" in stages(named)["train"].notes
    away = make_config(config.root, train={"data": f"{uri}-gone"})
    assert "`kit19 data` was never finished there" in said(away)


def test_a_hub_model_is_a_note_and_offline_it_is_missing(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    keys = {"model": {"name": "organisation/model"}}
    config = make_config(f"file://{tmp_path}", train=keys, data={"tokenizer": {"name": "organisation/model"}})
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    found = plan.make(config)
    found.require()
    notes = [note for f in found.stages for note in f.notes]
    assert "train.model.name=organisation/model is not on this machine: it comes from the hub" in notes
    assert any("its config.json is not on this machine, so its size is not known" in note for note in notes)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = said(config)
    assert "data.tokenizer.name='organisation/model' is not whole in the hub's cache" in message
    (tmp_path / "empty").mkdir()
    bare = make_config(f"file://{tmp_path}", data={"tokenizer": {"name": str(tmp_path / "empty")}})
    assert "there is no tokenizer_config.json in it" in said(bare)


def test_large_sources_are_hashed_only_when_asked(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "HASHED_BYTES", 10)
    data = plan.make(config).stages[0]
    assert (data.uri, data.state) == (None, "unknown") and "--hash does it" in data.notes[0]
    assert plan.make(config, hashing=True).stages[0].uri is not None


def test_a_full_disk_and_a_small_machine(make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(machine, "cpus", lambda: 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 1000))  # type: ignore[attr-defined]
    config = make_config(f"file://{tmp_path}")
    assert "checkpoints and export need 0.0 GB, 0.0 GB are free" in said(config)
    assert any("need 2 CPUs, this machine has 1" in note for note in stages(config)["train"].notes)
    on_gpu = make_config(f"file://{tmp_path}", train={"use_gpu": True, "workers": 1})
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    assert any("this machine has no NVIDIA GPU" in note for note in stages(on_gpu)["train"].notes)
    huge = make_config(f"file://{tmp_path}", train={"model": {"hidden_size": 32768, "layers": 99}})
    assert any("lower train.micro_batch_size" in note for note in stages(huge)["train"].notes)


def test_an_optimizer_that_steps_on_gpus_alone(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    either = make_config(f"file://{tmp_path}", train={"use_gpu": None, "optimizer": "adamw_8bit"})
    found = stages(either)["train"]
    assert [entry["device"] for entry in found.facts["devices"]] == ["GPU"]
    assert any("adamw_8bit steps on GPUs only: a cluster without any is refused" in note for note in found.notes)
    wanted = make_config(f"file://{tmp_path}", train={"use_gpu": True, "optimizer": "adamw_8bit"})
    plain = make_config(f"file://{tmp_path}", train={"use_gpu": True})
    assert not any("adamw_8bit" in note for note in stages(wanted)["train"].notes)
    packed, whole = (stages(config)["train"].facts["devices"][0]["bytes"]["optimizer"] for config in (wanted, plain))
    assert packed < 0.51 * whole


def test_a_root_that_cannot_be_written(tmp_path: Path, make_config: Any) -> None:
    (tmp_path / "file").write_text("")
    config = make_config(f"file://{tmp_path}/file/below")
    assert "file is not a folder that you may write to" in said(config)
    assert plan.make(config).stages == []


def test_other_tasks_of_the_harness_are_not_judged(make_config: Any, tmp_path: Path) -> None:
    hub = make_config(f"file://{tmp_path}", evaluate={"tasks": ["kobest", "paws_ko"], "source": "hub", "limit": 3})
    found = stages(hub)["evaluate"]
    assert len(found.facts["tasks"]) == 6 and "documents" not in found.facts
    assert found.notes == ["whether the harness has paws_ko is seen when the evaluation starts"]
    files = make_config(f"file://{tmp_path}", evaluate={"tasks": ["paws_ko"]})
    assert "its documents are on the hub, and evaluate.source is 'files'" in said(files)


@pytest.mark.s3
def test_on_s3(s3_root: str, make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan.make(make_config(s3_root))
    found.require()
    assert found.stages[0].uri is not None and found.stages[0].uri.startswith(s3_root)
    assert storage.list_files("s3://kit19") == []
    assert "there is no bucket s3://no-bucket at http://127.0.0.1" in said(make_config("s3://no-bucket/runs"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "no AWS credentials were found" in said(make_config(s3_root))


def test_text_and_json_say_the_same(make_config: Any, tmp_path: Path) -> None:
    config = make_config(
        f"file://{tmp_path}",
        data={"tasks": ["unsmile"], "seq_len": 2048},
        train={
            "model": {"name": "EleutherAI/polyglot-ko-5.8b"}, "use_gpu": True, "batch_size": 16, "workers": 8,
            "zero_stage": 1,
        },
    )  # fmt: skip
    planned = plan.make(config)
    record = json.loads(render.json_text(planned))
    text = render.text(planned)
    assert record["stages"]["train"]["parameters"] == 5_885_059_072 and "\n          5,885,059,072 parameters" in text
    assert "licence of unsmile (CC BY-NC-ND 4.0): no commercial use, no derivatives" in text
    assert "does not fit 40 GB; it would with train." in text
    assert "time: not known, no run of this model is under the root" in text
    assert record["stages"]["data"]["uri"] in text
    assert [m["message"] for m in record["missing"]] == [e.message for e in planned.missing]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (99_940, "99.9 KB"), (123_456_789, "123 MB"), (5e15, "5000 TB")],
)
def test_sizes_read_well(number: float, text: str) -> None:
    assert render.size(number) == text


def test_the_best_checkpoint(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    best = {"score": "kobest_copa.macro_f1", "patience": 2, "every": 3, "limit": 50}
    words = {"best": config.train.best.model_validate(best), "use_gpu": False, "workers": 1}
    wanted = config.model_copy(update={"train": config.train.model_copy(update=words)})
    train = stages(wanted)["train"]
    steps = train.facts["steps"]
    assert train.facts["best"]["checkpoints"] == -(-steps // 3)
    line = f"exports the checkpoint with the highest kobest_copa.macro_f1 on 50 documents of {-(-steps // 3)} scored, "
    assert f"{line}until 2 in a row are no better" in render.text(plan.make(wanted))
    many = wanted.train.model_copy(update={"workers": 8, "cpus_per_worker": float(os.cpu_count() or 1)})
    notes = stages(config.model_copy(update={"train": many}))["train"].notes
    assert any("is made beside the training" in note for note in notes)
    hub = wanted.train.model_copy(update={"best": config.train.best.model_validate({"score": "haerae.acc"})})
    assert "haerae: its documents are on the hub" in said(config.model_copy(update={"train": hub}))


def test_a_base_model_that_reads_less_than_the_rows(make_config: Any, finished_data: Any, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = tmp_path / "model"
    model.mkdir()
    known = {"model_type": "gpt_neox", "vocab_size": 300, "max_position_embeddings": 32, **sizes}
    (model / "config.json").write_text(json.dumps(known))
    config = make_config(f"file://{tmp_path}/runs", train={"model": {"name": str(model)}, "batch_size": 8, "workers": 2,
                         "micro_batch_size": 2, "epochs": 1, "use_gpu": False})  # fmt: skip
    wanted = "reads at most 32 tokens, the data's rows have 64"
    assert wanted in said(config)
    finished_data(config)
    assert wanted in said(config)
