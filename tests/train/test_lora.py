"""Adapters: under every ZeRO stage the same, taken up by another number of workers, exported alone and merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kit19_ray.artifacts import checkpoint, metrics_log
from kit19_ray.config.schema import LoraConfig
from kit19_ray.errors import TrainError, UserError
from kit19_ray.lm import pretrained
from kit19_ray.train import trackers
from kit19_ray.train.candidate_scorer import write_model
from kit19_ray.train.model import add_adapters, grow_vocabulary, keep_gradients, quantization
from tests.train.ranks import losses, run_ranks, spec_of, train
from tests.train.test_elastic import SETTINGS, SHARDED

pytestmark = pytest.mark.ranks

Legs = list[tuple[int, int, int | None]]


def run(
    make_config: Any,
    data: str,
    base: str,
    root: Path,
    legs: list[tuple[int, int, int | None]],
    more: dict[str, Any] | None = None,
    **lora: Any,
) -> Any:
    spec = None
    for workers, stage, stop_at in legs:
        keys = SETTINGS | {"workers": workers, "zero_stage": stage, "model": {"name": base}, "max_steps": 8}
        keys |= more or {}
        spec = spec_of(
            make_config(f"file://{root}", **keys, lora={"rank": 4, "dropout": 0.0} | lora, deepspeed=SHARDED), data
        )
        run_ranks(workers, train, spec, stop_at)
    return spec


@pytest.fixture(scope="module")
def one(make_config: Any, data_prefix: str, base: str, tmp_path_factory: Any) -> Any:
    """One worker, ZeRO-2."""
    return run(make_config, data_prefix, base, tmp_path_factory.mktemp("one"), [(1, 2, None)])


@pytest.mark.parametrize("legs", [[(2, 2, 3), (1, 1, None)], [(2, 3, 4), (2, 3, None)]])
def test_the_same_whatever_shards_it(
    legs: Legs, one: Any, make_config: Any, data_prefix: str, base: str, tmp_path: Path
) -> None:
    spec = run(make_config, data_prefix, base, tmp_path, legs)
    assert losses(spec) == pytest.approx(losses(one), rel=1e-6)
    index = checkpoint.newest(spec.out)
    assert index is not None and all("lora_" in name for name in index["parameters"])  # nothing frozen is saved


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it by its old name
def test_the_adapter_and_the_merged_model_are_the_same_model(one: Any, base: str) -> None:
    from peft import PeftModel

    out = one.out.removeprefix("file://")
    merged = pretrained.load_causal_lm(f"{out}/export")
    adapted = PeftModel.from_pretrained(pretrained.load_causal_lm(base), f"{out}/adapter")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        theirs, ours = adapted(input_ids=ids).logits, merged(input_ids=ids).logits
        untouched = pretrained.load_causal_lm(base)(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert float((ours - untouched).abs().max()) > 1e-3
    assert "adapters of rank 4, merged" in Path(out, "export", "README.md").read_text()


@pytest.mark.parametrize(("kind", "zero_stage"), [("dora", 2), ("rslora", 3)])
def test_peft_s_other_kinds(
    kind: str, zero_stage: int, make_config: Any, data_prefix: str, base: str, tmp_path: Path
) -> None:
    spec = run(make_config, data_prefix, base, tmp_path, [(1, zero_stage, None)], kind=kind)
    found = [line["validation_loss"] for line in metrics_log.read(spec.out) if "validation_loss" in line]
    assert found[-1] < found[0]


def test_dora_is_refused_where_weights_are_sharded(make_config: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dora reads whole weights"):
        make_config(f"file://{tmp_path}", model={"name": "x/y"}, lora={"rank": 2, "kind": "dora"}, zero_stage=3)


@pytest.fixture
def small(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A base model of 280 entries, where the data's tokenizer has 300; its head is tied or not."""
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=280, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        tie_word_embeddings=request.param,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "small")
    return str(tmp_path / "small")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it by its old name
class TestAGrownVocabulary:
    """Embedding and head are trained whole beside the adapters."""

    @pytest.mark.parametrize(
        ("small", "legs"),
        [(False, [(2, 2, 3), (1, 1, None)]), (True, [(1, 2, 4), (1, 2, None)]), (False, [(2, 3, 4), (2, 3, None)])],
        indirect=["small"],
    )
    def test_is_trained_taken_up_exported_and_merged(
        self, legs: Legs, small: str, make_config: Any, data_prefix: str, tmp_path: Path
    ) -> None:
        from peft import PeftModel

        more = {"model": {"name": small, "grow_vocabulary": True}, "best": {"score": "validation_loss", "every": 4}}
        spec = run(make_config, data_prefix, small, tmp_path / "run", legs, more)  # its export was compared
        out = spec.out.removeprefix("file://")
        merged, grown = pretrained.load_causal_lm(f"{out}/export"), pretrained.load_causal_lm(small)
        grow_vocabulary(grown, 300)
        ids = torch.arange(260, 300)[None]
        with torch.no_grad():
            ours, fresh = merged(input_ids=ids).logits, grown(input_ids=ids).logits
            theirs = PeftModel.from_pretrained(grown, f"{out}/adapter")(input_ids=ids).logits
        assert merged.config.vocab_size == 300
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
        assert float((ours - fresh)[..., 280:].abs().max()) > 1e-3
        index = checkpoint.newest(spec.out)
        assert index is not None and {n for n in index["parameters"] if "lora_" not in n} == {
            "model.embed_tokens.weight", *([] if merged.config.tie_word_embeddings else ["lm_head.weight"])
        }  # fmt: skip
        at = max(checkpoint.folders(spec.out), key=lambda folder: folder.step)
        events = [line["text"] for line in metrics_log.read(spec.out, metrics_log.EVENTS)]
        assert events[-1].startswith(f"exports step {at.step}, the best")
        write_model(tmp_path / "candidate", spec, at, "float32")
        with torch.no_grad():
            candidates = pretrained.load_causal_lm(str(tmp_path / "candidate"))(input_ids=ids).logits
        torch.testing.assert_close(candidates, ours, rtol=0, atol=1e-4)
        assert "the base model needs 300 entries" in Path(out, "adapter", "README.md").read_text()
        with pytest.raises(UserError, match=r"it holds whole weights .*lm_head.*\n.*merged model"):
            pretrained.find_adapter(f"{out}/adapter")

    def test_has_no_adapter_at_its_head_too(self) -> None:
        config = transformers.LlamaConfig(
            vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
        with pytest.raises(TrainError, match=r"targets: 'lm_head' is trained whole because of .*grow_vocabulary"):
            add_adapters(
                transformers.LlamaForCausalLM(config), LoraConfig(rank=2, targets=["q_proj", "lm_head"]), 0, True
            )


def test_a_layer_that_is_not_there_is_named() -> None:
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    )

    with pytest.raises(TrainError, match=r"no linear layer 'q_prj' \(did you mean 'q_proj'\?\); it has .*v_proj"):
        add_adapters(model, LoraConfig(rank=2, targets=["q_prj"]), 0)


class TestFourBits:
    """QLoRA; bitsandbytes runs on CPUs too, slowly."""

    @pytest.mark.parametrize("legs", [[(2, 2, 3), (1, 1, None)]])
    def test_trains_is_taken_up_and_merged(
        self, legs: Legs, make_config: Any, data_prefix: str, base: str, tmp_path: Path
    ) -> None:
        pytest.importorskip("bitsandbytes")
        spec = run(make_config, data_prefix, base, tmp_path, legs, quantize="nf4")
        found = [line["validation_loss"] for line in metrics_log.read(spec.out) if "validation_loss" in line]
        assert found[-1] < found[0]
        merged = pretrained.load_causal_lm(f"{spec.out}/export")
        assert merged.dtype is torch.float32 and merged.config.vocab_size == 320
        index = checkpoint.newest(spec.out)
        assert index is not None and all("lora_" in name for name in index["parameters"])

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it by its old name
    @pytest.mark.filterwarnings("ignore:_check_is_size will be removed:FutureWarning")  # bitsandbytes on a CPU
    @pytest.mark.parametrize(
        ("family", "whole"),
        [
            ("Llama", {"model.embed_tokens.weight", "lm_head.weight"}),
            ("GPTNeoX", {"gpt_neox.embed_in.weight", "lm_head.weight"}),
        ],
    )
    def test_a_grown_vocabulary_is_of_whole_weights(self, family: str, whole: set[str], tmp_path: Path) -> None:
        pytest.importorskip("bitsandbytes")
        config = getattr(transformers, f"{family}Config")(
            vocab_size=280, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            tie_word_embeddings=False,
        )  # fmt: skip
        getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(tmp_path)
        model = pretrained.load_causal_lm(str(tmp_path), torch.float32, quantized=quantization(torch.float32))
        grow_vocabulary(model, 300)
        add_adapters(model, LoraConfig(rank=4), 0, embeddings=True)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name}
        assert trained.keys() == whole
        assert all(type(p) is torch.nn.Parameter and p.shape == (300, 64) for p in trained.values())
        packed = [p for p in model.parameters() if getattr(p, "quant_state", None) is not None]
        assert len(packed) == 2 * {"Llama": 7, "GPTNeoX": 4}[family] and not any(p.requires_grad for p in packed)

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it by its old name
    @pytest.mark.filterwarnings("ignore:_check_is_size will be removed:FutureWarning")  # bitsandbytes on a CPU
    def test_gradients_are_the_same_after_an_evaluation(self, base: str) -> None:
        pytest.importorskip("bitsandbytes")
        model = pretrained.load_causal_lm(base, torch.float32, quantized=quantization(torch.float32))
        keep_gradients(model)
        add_adapters(model, LoraConfig(rank=4, dropout=0), 0, embeddings=True)
        ids = torch.arange(30)[None]

        def gradients() -> list[torch.Tensor]:
            model.train()
            model.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            return [p.grad.clone() for p in model.parameters() if p.grad is not None]

        before = gradients()
        model.eval()
        with torch.no_grad():
            model(input_ids=ids)
        assert all(map(torch.equal, before, gradients()))

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for it by its old name
    @pytest.mark.parametrize("tied", [False, True])
    def test_a_grown_vocabulary_is_whole_trained_taken_up_and_merged(
        self, tied: bool, make_config: Any, data_prefix: str, tmp_path: Path
    ) -> None:
        pytest.importorskip("bitsandbytes")
        torch.manual_seed(5)
        config = transformers.LlamaConfig(
            vocab_size=280, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            tie_word_embeddings=tied,
        )  # fmt: skip
        small = str(tmp_path / "small")
        transformers.LlamaForCausalLM(config).save_pretrained(small)
        more = {"model": {"name": small, "grow_vocabulary": True}}
        spec = run(make_config, data_prefix, small, tmp_path / "run", [(2, 2, 3), (1, 1, None)], more, quantize="nf4")
        found = [line["validation_loss"] for line in metrics_log.read(spec.out) if "validation_loss" in line]
        assert found[-1] < found[0]
        whole = {"model.embed_tokens.weight", *([] if tied else ["lm_head.weight"])}
        at = checkpoint.folders(spec.out)[0]
        index = checkpoint.read_index(spec.out, at)
        assert index is not None and {n for n in index["parameters"] if "lora_" not in n} == whole
        assert all(index["parameters"][name] == 300 * 64 for name in whole)  # elements, not packed bits
        merged, grown = pretrained.load_causal_lm(f"{spec.out}/export"), pretrained.load_causal_lm(small)
        grow_vocabulary(grown, 300)
        assert merged.config.vocab_size == 300
        before, after = dict(grown.named_parameters()), dict(merged.named_parameters())
        assert before.keys() == after.keys()
        for name in whole:
            moved = (after[name] - before[name]).detach().abs().amax(dim=1)
            assert float(moved[280:].min()) > 0 if name == "lm_head.weight" else float(moved[280:].max()) > 0
        # All else is the base's own 16 bits (here 32) with the adapters added: those that were kept in 4 bits too.
        assert "model.norm.weight" in after
        torch.testing.assert_close(after["model.norm.weight"], before["model.norm.weight"], rtol=0, atol=0)
        from peft import PeftModel

        ids = torch.arange(260, 300)[None]
        with torch.no_grad():
            ours = merged(input_ids=ids).logits
            theirs = PeftModel.from_pretrained(grown, f"{spec.out.removeprefix('file://')}/adapter")(
                input_ids=ids
            ).logits
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)

    def test_is_refused_without_adapters_and_under_zero_3(self, make_config: Any, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="set lora.rank"):
            make_config(f"file://{tmp_path}", model={"name": "x/y"}, lora={"quantize": "nf4"})
        with pytest.raises(ValueError, match="does not go with zero_stage=3"):
            make_config(f"file://{tmp_path}", model={"name": "x/y"}, lora={"rank": 2, "quantize": "nf4"}, zero_stage=3)

    def test_what_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import importlib.util

        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else True)
        with pytest.raises(TrainError, match="train.lora.quantize: bitsandbytes is not installed"):
            trackers.require([], adapters=True, few_bits=["lora.quantize"])
