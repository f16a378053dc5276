from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.errors import UserError
from kit19_ray.preflight.base_model import check_end, check_named, read_config
from kit19_ray.preflight.findings import Findings


def test_read_config_takes_a_folder_a_train_prefix_and_the_hubs_cache(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
    assert read_config(str(folder)) == {"model_type": "gpt_neox"}
    trained = tmp_path / "train-1"
    (trained / "export").mkdir(parents=True)
    (trained / "export" / "config.json").write_text('{"model_type": "llama"}')
    manifest.commit(f"file://{trained}", {"stage": "train", "export": "export"})
    assert read_config(str(trained)) == {"model_type": "llama"}
    assert read_config("no-such-organisation/no-such-model") is None
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(folder / "config.json"))
    assert read_config("an-organisation/a-model") == {"model_type": "gpt_neox"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "has no config.json, so it is no model in Hugging Face's layout"),
        ("{", "config.json is not JSON"),
        ("[]", "a model's config is a JSON object, this is a list"),
    ],
)
def test_a_folder_without_a_config_is_no_model(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_config(str(tmp_path))


TOKENIZER = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot of organisation/model in a hub cache of the test's own, its files links as they are there."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    repo = tmp_path / "hub" / "models--organisation--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "blobs").mkdir()
    snapshot = repo / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(4)
    files = {"config.json": b'{"model_type": "gpt_neox"}', "tokenizer_config.json": b"{}",
             "tokenizer.json": json.dumps(TOKENIZER).encode(), "model.safetensors": weights}  # fmt: skip
    for name, data in files.items():
        (repo / "blobs" / name).write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    return snapshot


def looked_at(key: str = "train.model.name", marker: str = "config.json") -> Findings:
    found = Findings("train")
    there = check_named("organisation/model", key, marker, found)
    assert there is (not found.missing and not found.notes) or found.missing
    return found


def test_a_copy_in_the_hubs_cache_is_opened(cached: Path) -> None:
    assert looked_at().missing == looked_at("data.tokenizer.name", "tokenizer_config.json").missing == []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("model.safetensors", b"\x08", "not a whole safetensors file"),
        ("tokenizer.json", b'{"version": "1.0", "model": {"type": "OfTheYear2099"}}', "newer release"),
        ("tokenizer.json", b"{", "is not JSON"),
        ("config.json", b"{", "is not JSON"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "model-2.safetensors"}}', "files that are not there"),
    ],
)
def test_what_is_wrong_with_it_is_said(cached: Path, name: str, data: bytes, said: str) -> None:
    (cached / name).unlink(missing_ok=True)
    (cached / name).write_bytes(data)
    (error,) = looked_at().missing
    assert said in str(error) and str(cached.parent.parent) in str(error)


def test_a_copy_without_its_weights_is_no_copy(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cached / "model.safetensors").unlink()
    assert looked_at().notes == ["train.model.name=organisation/model is not on this machine: it comes from the hub"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (error,) = looked_at().missing
    assert "is not whole in the hub's cache" in str(error)


@pytest.mark.parametrize(
    ("config", "ends"),
    [
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, False),
        ({"tokenizer_class": "TokenizersBackend", "eos_token": None}, False),
        ({"tokenizer_class": "TokenizersBackend", "eos_token": "</s>"}, True),
        ({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": {"content": "</s>"}}, True),
        ({"tokenizer_class": "LlamaTokenizer"}, True),  # has one of its own
    ],
)
def test_a_tokenizer_that_cannot_end_an_answer_is_named(tmp_path: Path, config: Any, ends: bool) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    found = Findings("data")
    check_end(str(tmp_path), "data.tokenizer.name", found)
    assert [("has no end-of-text token" in error.message) for error in found.missing] == ([] if ends else [True])
