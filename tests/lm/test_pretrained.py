"""Models by name: what is found, what is refused, and that weights from scratch depend on nothing but the seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kit19_ray.artifacts import manifest
from kit19_ray.errors import UserError
from kit19_ray.io import storage
from kit19_ray.lm import pretrained


def tiny(seed: int = 1) -> Any:
    return pretrained.build_gpt_neox(
        hidden_size=16,
        layers=1,
        heads=2,
        intermediate_size=None,
        vocab_size=50,
        seq_len=32,
        eos_token_id=0,
        pad_token_id=1,
        seed=seed,
    )


@pytest.mark.parametrize("name", ["gpt2", "EleutherAI/polyglot-ko-1.3b"])
def test_hub_ids_are_left_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pretrained.resolve(name) == name


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "a/b/c", "~/no-such-model", "오타"])
def test_a_path_that_does_not_exist_is_said(name: str) -> None:
    with pytest.raises(UserError, match="there is no such folder") as caught:
        pretrained.resolve(name)
    assert name in caught.value.message


def test_a_folder_without_a_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        pretrained.resolve(str(tmp_path))


def test_there_and_back(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "model")
    for name in (str(tmp_path / "model"), f"file://{tmp_path}/model"):
        loaded = pretrained.load_causal_lm(name)
        assert not loaded.training
        for key, value in tiny().state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value), key
    assert pretrained.load_causal_lm(str(tmp_path / "model"), torch.bfloat16).dtype is torch.bfloat16
    assert pretrained.load_config(str(tmp_path / "model")).vocab_size == 50


def test_a_train_prefix_stands_for_its_export(tmp_path: Path) -> None:
    run = f"file://{tmp_path}/train-x"
    tiny().save_pretrained(tmp_path / "train-x" / "export")
    with pytest.raises(UserError, match=r"no config\.json") as caught:
        pretrained.resolve(run)
    assert "kit19 train" in caught.value.hint
    manifest.commit(run, {"stage": "train", "export": "export"})
    assert pretrained.resolve(run) == str(tmp_path / "train-x" / "export")


@pytest.mark.s3
def test_from_s3(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT19_CACHE", str(tmp_path / "cache"))
    tiny().save_pretrained(tmp_path / "model")
    storage.upload_dir(tmp_path / "model", storage.join(s3_root, "model"))
    loaded = pretrained.load_causal_lm(storage.join(s3_root, "model"))
    assert torch.equal(loaded.get_output_embeddings().weight, tiny().get_output_embeddings().weight)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    model = tiny()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors") as caught:
        pretrained.load_causal_lm(str(tmp_path))
    assert "safetensors files only" in caught.value.hint


def test_a_model_without_a_tokenizer_is_said(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no tokenizer_config\.json"):
        pretrained.load_tokenizer(str(tmp_path))


def test_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, different = tiny(1), tiny(1), tiny(2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.get_output_embeddings().weight, different.get_output_embeddings().weight)
    assert one.config.max_position_embeddings == 32
    assert (one.config.eos_token_id, one.config.pad_token_id) == (0, 1)
