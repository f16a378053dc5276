"""The stage on a real Ray cluster: every ZeRO stage and number of workers trains the same model and exports it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kit19_ray.artifacts import manifest, metrics_log
from kit19_ray.errors import StorageError, TrainError, UserError
from kit19_ray.io import storage
from kit19_ray.lm import pretrained
from kit19_ray.train import stage

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def reference(ray_cluster: None, data_prefix: str, make_config: Any, tmp_path_factory: Any) -> str:
    """One worker, ZeRO-1."""
    config = make_config(f"file://{tmp_path_factory.mktemp('one')}", workers=1, zero_stage=1)
    return stage.run(config, data_prefix)


def lines(uri: str, key: str) -> dict[int, float]:
    return {line["step"]: line[key] for line in metrics_log.read(uri) if key in line}


def assert_same_training(found: str, expected: str) -> None:
    """The same losses, step by step: gradients are summed in another order and nothing else differs."""
    for key in ("loss", "validation_loss"):
        ours, theirs = lines(found, key), lines(expected, key)
        assert ours.keys() == theirs.keys()
        # fp32; after 16 AdamW steps at 1e-2, rounding has grown to about 1e-6.
        assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-4)


def test_a_run_leaves_what_the_next_stages_read(reference: str, data_prefix: str) -> None:
    made = manifest.require(reference, "train")
    assert made["data"] == data_prefix
    assert (made["steps"], made["prompt"], made["export"]) == (16, "kullm", "export")
    assert made["validation_loss"] < 0.95 * made["validation_loss_first"]
    model = pretrained.load_causal_lm(reference)
    assert made["parameters"] == sum(p.numel() for p in model.parameters())
    assert model.generation_config.eos_token_id == 0
    assert len(pretrained.load_tokenizer(reference)) == 300
    listed = {f"export/{file.path}" for file in storage.list_files(storage.join(reference, "export"))}
    assert listed == set(made["files"])
    assert "export/model.safetensors" in listed


def test_metrics_hold_a_line_for_every_logged_step(reference: str) -> None:
    written = metrics_log.read(reference)
    assert [line["step"] for line in written] == [0, 4, 8, 12, 16]
    assert [line["step"] for line in written if "validation_loss" in line] == [0, 8, 16]
    for line in written[1:]:
        assert line.keys() >= {"loss", "lr", "grad_norm", "tokens_per_second", "data_wait_seconds", "eta_seconds"}
        assert line["progress"] == line["step"] / 16
        assert line["epoch"] == pytest.approx(line["step"] * 8 / 66)


def test_a_finished_run_is_left_as_it_is(reference: str, data_prefix: str, make_config: Any) -> None:
    root = reference.rsplit("/", 1)[0]
    before = storage.list_files(reference)
    # What does not change the result does not change the prefix either.
    config = make_config(root, workers=2, zero_stage=3, log_every=1, micro_batch_size=1)
    assert stage.run(config, data_prefix) == reference
    assert storage.list_files(reference) == before


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_two_workers_train_the_same_model(
    zero_stage: int, reference: str, data_prefix: str, make_config: Any, tmp_path: Path
) -> None:
    uri = stage.run(make_config(f"file://{tmp_path}", zero_stage=zero_stage), data_prefix)
    assert_same_training(uri, reference)
    ours, theirs = pretrained.load_causal_lm(uri), pretrained.load_causal_lm(reference)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3, msg=name)  # a fifth of one step at the peak rate


def test_a_published_model_is_tuned_under_zero_3(
    ray_cluster: None, data_prefix: str, make_config: Any, tmp_path: Path
) -> None:
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=320,  # padded beyond the tokenizer, as published models are
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(5)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    settings = {"zero_stage": 3, "model": {"name": str(tmp_path / "base")}, "gradient_checkpointing": True}
    uri = stage.run(make_config(f"file://{tmp_path}", max_steps=4, **settings), data_prefix)
    base, tuned = pretrained.load_causal_lm(str(tmp_path / "base")), pretrained.load_causal_lm(uri)
    assert type(tuned) is type(base)
    pairs = zip(base.state_dict().values(), tuned.state_dict().values(), strict=True)
    moved = max(float((a - b).abs().max()) for a, b in pairs)
    assert 0 < moved < 0.1
    assert manifest.require(uri, "train")["validation_loss"] < manifest.require(uri, "train")["validation_loss_first"]


def test_bf16_exports_what_was_trained(ray_cluster: None, data_prefix: str, make_config: Any, tmp_path: Path) -> None:
    config = make_config(f"file://{tmp_path}", workers=1, zero_stage=2, precision="bf16", max_steps=8)
    uri = stage.run(config, data_prefix)
    made = manifest.require(uri, "train")
    assert made["precision"] == "bfloat16"
    assert made["validation_loss"] < made["validation_loss_first"]
    assert pretrained.load_causal_lm(uri).dtype is torch.bfloat16


def test_another_number_of_workers_and_stage_takes_up_a_run(
    ray_cluster: None, data_prefix: str, make_config: Any, tmp_path: Path
) -> None:
    root = f"file://{tmp_path}"
    uri = stage.run(make_config(root, workers=1, max_steps=10), data_prefix)
    storage.delete(storage.join(uri, manifest.NAME))  # as if it had been killed before the end
    config = make_config(root, workers=2, zero_stage=3, max_steps=10)
    assert stage.run(config, data_prefix) == uri
    events = [line["text"] for line in metrics_log.read(uri, metrics_log.EVENTS)]
    assert events == ["goes on at step 8 with 2 workers"]
    assert [line["workers"] for line in metrics_log.read(uri) if "workers" in line] == [1, 1, 2]


def test_a_diverged_run_is_the_users_to_mend(
    ray_cluster: None, data_prefix: str, make_config: Any, tmp_path: Path
) -> None:
    config = make_config(f"file://{tmp_path}", workers=1, learning_rate=1e30, warmup_ratio=0)
    with pytest.raises(TrainError, match="the training has diverged") as caught:
        stage.run(config, data_prefix)
    assert "train.learning_rate" in caught.value.hint


def test_a_fault_in_a_worker_is_one_line_and_a_file(
    ray_cluster: None, data_prefix: str, make_config: Any, make_prefix: Any, tmp_path: Path
) -> None:
    data = make_prefix(f"file://{tmp_path}")
    shard = tmp_path / "data-synthetic" / "train" / "shard-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:1000])
    made = manifest.require(data, "data")  # not what any user did: the manifest says it was written so
    made["splits"]["train"]["shards"][0] |= {
        "sha256": hashlib.sha256(shard.read_bytes()).hexdigest(),
        "size": 1000,
    }
    manifest.commit(data, made)
    with pytest.raises(RuntimeError, match=r"^training failed: worker 0: .*failure\.txt\)$") as caught:
        stage.run(make_config(f"file://{tmp_path}", workers=1), data)
    assert "\n" not in str(caught.value)
    kept = storage.read_text(stage.uri(make_config(f"file://{tmp_path}", workers=1), data) + "/failure.txt")
    assert "Traceback" in kept
    assert "kit19_ray" in kept


class TestWhatIsRefusedBeforeAnyWorkerStarts:
    def test_more_workers_than_rows(self, data_prefix: str, make_config: Any, tmp_path: Path) -> None:
        with pytest.raises(TrainError, match=r"train\.workers=2 is more than train\.batch_size=1"):
            stage.run(make_config(f"file://{tmp_path}", batch_size=1), data_prefix)

    def test_a_model_that_is_not_there(self, data_prefix: str, make_config: Any, tmp_path: Path) -> None:
        config = make_config(f"file://{tmp_path}", model={"name": "/nowhere/model"})
        with pytest.raises(UserError, match="'/nowhere/model': there is no such folder"):
            stage.run(config, data_prefix)

    def test_a_model_with_too_few_tokens(self, data_prefix: str, make_config: Any, tmp_path: Path) -> None:
        import transformers

        transformers.LlamaConfig(vocab_size=299).save_pretrained(tmp_path)
        with pytest.raises(TrainError, match=r"knows 299 tokens, .* a tokenizer of 300") as caught:
            stage.run(make_config(f"file://{tmp_path}", model={"name": str(tmp_path)}), data_prefix)
        assert "data.tokenizer.name" in caught.value.hint

    def test_a_data_prefix_that_was_never_finished(self, make_config: Any, tmp_path: Path) -> None:
        (tmp_path / "data-x" / "train").mkdir(parents=True)
        with pytest.raises(StorageError, match=r"has no manifest\.json"):
            stage.run(make_config(f"file://{tmp_path}"), f"file://{tmp_path}/data-x")

    def test_more_workers_than_the_machine_has(
        self, ray_cluster: None, data_prefix: str, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with pytest.raises(TrainError, match=r"train\.workers=4 need 4 CPUs, the Ray cluster has 2"):
            stage.run(make_config(f"file://{tmp_path}", workers=4), data_prefix)


def test_the_prefix_is_named_by_what_the_weights_depend_on(data_prefix: str, make_config: Any, tmp_path: Path) -> None:
    root = f"file://{tmp_path}"
    base = stage.uri(make_config(root), data_prefix)
    assert stage.uri(make_config(root, workers=1, zero_stage=3, cpus_per_worker=2, save_every=1), data_prefix) == base
    assert stage.uri(make_config(root, learning_rate=2e-2), data_prefix) != base
    assert stage.uri(make_config(root).model_copy(update={"seed": 20}), data_prefix) != base
    made = json.loads(storage.read_text(storage.join(data_prefix, manifest.NAME)))
    made["splits"]["train"]["shards"][0]["sha256"] = "0" * 64
    manifest.commit(f"{root}/other", made)
    assert stage.uri(make_config(root), f"{root}/other") != base
