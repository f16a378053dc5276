"""A model's files as people have them: pointers, halves, settings of a published tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from kit19_ray.errors import UserError
from kit19_ray.lm import model_files, pretrained
from kit19_ray.lm.text_encoder import TextEncoder

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.ones(5, np.float16)}, tmp_path / "model.safetensors")
    return tmp_path


def test_whole_files_pass(folder: Path) -> None:
    model_files.check(f"file://{folder}")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_pointer_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(UserError, match=f"{name} is a Git LFS pointer, not the file\n.*git lfs pull"):
        model_files.check(f"file://{folder}")
    with pytest.raises(UserError, match="Git LFS pointer"):
        pretrained.load_causal_lm(str(folder))


@pytest.mark.parametrize("kept", [0, 7, 50, -1])
def test_half_a_file_is_named(folder: Path, kept: int) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:kept])
    with pytest.raises(UserError, match="model.safetensors is not a whole safetensors file"):
        model_files.check(f"file://{folder}")


def test_a_header_that_lies_about_its_length_is_not_read(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}" * 50)
    with pytest.raises(UserError, match="it has no safetensors header"):
        model_files.check(f"file://{folder}")


@pytest.mark.parametrize("text", ['{"model', "[" * 100_000])
def test_json_that_is_none_is_named(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match="tokenizer.json is not JSON"):
        model_files.check(f"file://{folder}")


def _tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({"<|end|>": 0, "a": 1, "<": 2, "|": 3, "end": 4, ">": 5, "[UNK]": 6}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["<|end|>"])
    return made


def test_settings_of_a_published_tokenizer_are_not_obeyed(tmp_path: Path) -> None:
    published = _tokenizer()
    published.enable_truncation(2)
    published.enable_padding(length=9)
    assert len(published.encode("a a a a")) == 9  # what it would do to an answer
    (tmp_path / "tokenizer.json").write_text(published.to_str())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    loaded = pretrained.load_tokenizer(str(tmp_path))
    assert TextEncoder(loaded).text(["a", "a a a a"]) == [[1], [1, 1, 1, 1]]
    loaded.save_pretrained(tmp_path / "saved")  # as a build and an export keep it, for whoever reads it next
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert saved["truncation"] is saved["padding"] is None


def test_a_tokenizer_that_the_library_does_not_know_is_one_message(tmp_path: Path) -> None:
    tree = json.loads(_tokenizer().to_str())
    tree["model"]["type"] = "OfTheYear2099"
    with pytest.raises(UserError, match="tokenizer.json: tokenizers .* cannot read it: .*\n.*newer release") as told:
        model_files.tokenizer_of(json.dumps(tree), "tokenizer.json")
    assert len(told.value.message) < 400
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError, match="newer release"):
        pretrained.load_tokenizer(str(tmp_path))
