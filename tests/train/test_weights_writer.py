"""What is written while the weights come in is what `save_pretrained` would have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kit19_ray.lm import pretrained
from kit19_ray.train import export
from kit19_ray.train.weights_writer import INDEX, WeightsWriter, stored_names, write_all
from tests.lm.test_attention import MODELS, build


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def gathered(model: Any) -> list[tuple[str, torch.Tensor]]:
    """As `Engine.full_weights` gives them: tied ones under each of their names."""
    named = dict(model.named_parameters(remove_duplicate=False))
    every = named | {name: tensor for name, tensor in model.state_dict().items() if name not in named}
    return [(name, tensor.detach()) for name, tensor in every.items()]


@pytest.mark.parametrize(("name", "more"), MODELS, ids=[name for name, _ in MODELS])
def test_the_same_files_as_transformers(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    model = build(name, more)
    export.write(tmp_path / "ours", gathered(model), model)
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = tensors(tmp_path / "ours"), tensors(tmp_path / "theirs")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    configs = [json.loads((tmp_path / which / "config.json").read_text()) for which in ("ours", "theirs")]
    assert configs[0] == configs[1]


def test_many_files_are_one_model(tmp_path: Path) -> None:
    model = build("Qwen3", {"tie_word_embeddings": True})
    write_all(tmp_path, gathered(model), model, most=20_000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_parameters"] == sum(p.numel() for p in model.parameters())
    assert set(index["weight_map"].values()) == set(files)
    loaded = pretrained.load_causal_lm(str(tmp_path))
    ids = torch.arange(3, 20)[None]
    assert torch.equal(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_no_more_than_a_file_is_held(tmp_path: Path) -> None:
    writer = WeightsWriter(tmp_path, most=4000)
    for at in range(10):
        writer.add(f"w{at}", torch.full((300,), float(at)))
        assert sum(tensor.nbytes for tensor in writer._held.values()) <= 4000
    assert writer.finish() == 10
    assert torch.equal(tensors(tmp_path)["w7"], torch.full((300,), 7.0))


def test_a_weight_that_never_came_is_named(tmp_path: Path) -> None:
    model = build("Llama", {})
    with pytest.raises(RuntimeError, match=r"weights missing \['model\.norm\.weight'\]"):
        write_all(tmp_path, [pair for pair in gathered(model) if pair[0] != "model.norm.weight"], model, 1 << 20)


def test_a_model_that_is_stored_under_other_names_is_written_whole(tmp_path: Path) -> None:
    model = build("Mixtral", {"num_local_experts": 2, "num_experts_per_tok": 1})
    assert stored_names(model) is None
    export.write(tmp_path, gathered(model), model)
    assert pretrained.load_causal_lm(str(tmp_path)).config.model_type == "mixtral"
