"""A published model as the workers get it: read by rank 0 alone under ZeRO-3, with more entries where it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kit19_ray.errors import TrainError
from kit19_ray.lm import pretrained
from kit19_ray.train import stage
from kit19_ray.train.model import grow_vocabulary
from tests.lm.test_attention import build
from tests.train.ranks import losses, run_ranks, spec_of, train
from tests.train.test_elastic import SETTINGS, SHARDED


def saved(folder: Path, vocab_size: int, tied: bool = False) -> str:
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def without_weights(spec: Any) -> Any:
    """A run whose rank 1 cannot find the model's weights."""
    import torch.distributed as dist

    def absent(*_: Any, **__: Any) -> Any:
        raise AssertionError("rank 1 reads no weights")

    if dist.get_rank() == 1:
        pretrained.resolve = pretrained.load_causal_lm = absent
    return train(spec)


@pytest.mark.ranks
@pytest.mark.parametrize("tied", [False, True], ids=["head_of_its_own", "head_is_the_embedding"])
def test_under_zero_3_rank_0_alone_reads_the_weights(
    tied: bool, make_config: Any, data_prefix: str, tmp_path: Path
) -> None:
    base = saved(tmp_path / "base", 320, tied)
    keys = SETTINGS | {"workers": 2, "zero_stage": 3, "model": {"name": base}, "max_steps": 3}
    spec = spec_of(make_config(f"file://{tmp_path}/sharded", **keys, deepspeed=SHARDED), data_prefix)
    run_ranks(2, without_weights, spec)
    whole = spec_of(make_config(f"file://{tmp_path}/whole", **keys | {"zero_stage": 2}), data_prefix)
    run_ranks(2, train, whole)
    assert losses(spec) == pytest.approx(losses(whole), rel=1e-6)


class TestAVocabularyThatIsTooSmall:
    """The data's tokenizer has 300 entries."""

    def test_is_refused_with_what_to_do(self, make_config: Any, data_prefix: str, tmp_path: Path) -> None:
        config = make_config(f"file://{tmp_path}", model={"name": saved(tmp_path / "base", 280)})
        with pytest.raises(TrainError, match="knows 280 tokens, .* of 300") as caught:
            stage.run(config, data_prefix)
        assert "train.model.grow_vocabulary=true" in caught.value.hint

    @pytest.mark.parametrize("zero_stage", [2, 3])
    def test_grows_when_asked(self, zero_stage: int, make_config: Any, data_prefix: str, tmp_path: Path) -> None:
        model = {"name": saved(tmp_path / "base", 280), "grow_vocabulary": True}
        keys = SETTINGS | {"workers": 2, "zero_stage": zero_stage, "model": model, "max_steps": 2}
        spec = spec_of(make_config(f"file://{tmp_path}", **keys, deepspeed=SHARDED), data_prefix)
        run_ranks(2, train, spec)
        assert pretrained.load_causal_lm(f"{spec.out}/export").config.vocab_size == 300


@pytest.mark.parametrize("tied", [True, False])
def test_new_entries_are_the_mean_of_the_old(tied: bool) -> None:
    model = build("Qwen3", {"tie_word_embeddings": tied})
    before = model.get_input_embeddings().weight.detach().clone()
    grow_vocabulary(model, 90)
    assert model.config.vocab_size == 97  # it has as many already
    grow_vocabulary(model, 101)
    after = model.get_input_embeddings().weight
    assert model.config.vocab_size == 101 and torch.equal(after[:97], before)
    torch.testing.assert_close(after[97:], before.mean(0).expand(4, -1))
    head = model.get_output_embeddings().weight
    assert (head.data_ptr() == after.data_ptr()) == tied and head.shape[0] == 101
