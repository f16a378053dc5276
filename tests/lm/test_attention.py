"""Attention by borders: the same as by masks, and on a GPU's operator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from kit19_ray.errors import TrainError
from kit19_ray.lm import attention
from kit19_ray.train.inputs import to_device
from kit19_ray.train.loss import PackedLM

VOCAB, SEQ_LEN = 97, 48
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8,
}  # fmt: skip
WINDOW = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("GPTNeoX", {"num_key_value_heads": None, "head_dim": None}),
    ("Llama", {}),
    ("Qwen2", {"head_dim": None}),
    ("Qwen3", {}),
    ("Gemma", {}),
    ("Gemma3Text", WINDOW),
    ("Exaone4", WINDOW),
    ("Mistral", {"sliding_window": 5}),
    ("Olmo2", {"head_dim": None}),
]


def build(name: str, more: dict[str, Any]) -> Any:
    torch.manual_seed(3)
    keys = {key: value for key, value in (SIZES | more).items() if value is not None}
    config = getattr(transformers, f"{name}Config")(**keys)
    model_name = f"{name.removesuffix('Text')}ForCausalLM"
    return getattr(transformers, model_name)(config)


def rows(number: int = 3) -> dict[str, np.ndarray]:
    """Packed rows of examples of random lengths; the last token of every example is learned."""
    rng = np.random.default_rng(4)
    ids = rng.integers(1, VOCAB, (number, SEQ_LEN)).astype(np.int32)
    places = np.zeros_like(ids)
    labels = np.full_like(ids, -100)
    for row in range(number):
        at = 0
        while at < SEQ_LEN:
            end = min(SEQ_LEN, at + int(rng.integers(2, 20)))
            places[row, at:end] = np.arange(end - at)
            if end - at > 1:
                labels[row, end - 1] = ids[row, end - 1]
            at = end
    return {"input_ids": ids, "labels": labels, "position_ids": places}


def test_borders() -> None:
    places = np.array([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3], [3, 4, 5, 0, 1]], np.int32)
    cuts, longest = attention.borders(places)
    assert cuts.tolist() == [0, 3, 5, 6, 10, 13, 15]  # a row begins an example, whatever its position says
    assert longest == 4
    assert cuts.dtype == np.int32


@pytest.mark.parametrize(("name", "more"), MODELS, ids=[name for name, _ in MODELS])
def test_the_same_as_by_masks(name: str, more: dict[str, Any]) -> None:
    columns, cpu = rows(), torch.device("cpu")
    model = build(name, more).train()
    lm = PackedLM(model)
    found: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for flat in (False, True):
        if flat:
            attention.register()
            model.set_attn_implementation(attention.NAME)
        model.zero_grad()
        batch = to_device(columns, cpu, flat)
        hidden = model.base_model(**_only(batch, flat)).last_hidden_state.reshape(3, SEQ_LEN, -1).detach()
        lm(**batch).backward()
        found.append((hidden, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (masked, by_mask), (packed, by_borders) = found
    torch.testing.assert_close(packed, masked, rtol=0, atol=1e-5 * float(masked.abs().max()))
    for parameter, gradient in by_mask.items():
        largest = max(float(gradient.abs().max()), 1e-3)
        torch.testing.assert_close(by_borders[parameter], gradient, rtol=0, atol=1e-5 * largest, msg=parameter)


def _only(batch: dict[str, Any], flat: bool) -> dict[str, Any]:
    from kit19_ray.train.loss import _inputs

    keys = ("input_ids", "position_ids", "borders", "longest") if flat else ("input_ids", "position_ids")
    return _inputs(**{key: batch[key] for key in keys})


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "more"), MODELS, ids=[name for name, _ in MODELS])
def test_all_of_these_pass_the_guard(name: str, more: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    model = build(name, more)
    with caplog.at_level("DEBUG", "kit19_ray.lm.attention"):
        assert attention.why_masked(model, torch.device("cpu"), torch.float32) is None
    assert not caplog.records, "the guard could not try it"
    assert model.config.num_hidden_layers == SIZES["num_hidden_layers"]


@pytest.mark.parametrize(("name", "more"), MODELS, ids=[name for name, _ in MODELS])
def test_on_a_device_only_the_flash_operator_attends(name: str, more: dict[str, Any]) -> None:
    """The meta device stands for a GPU: the same operators are asked for, and nothing is computed."""
    attention.register()
    model = build(name, more).to(torch.bfloat16).to("meta").train()
    model.set_attn_implementation(attention.NAME)
    batch = to_device(rows(), torch.device("cpu"), flat=True)
    batch = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    with _Operators() as seen:
        PackedLM(model)(**batch).backward()
    forward = [n for n in seen.names if "_varlen_attn" in n and "backward" not in n]
    backward = [n for n in seen.names if "_varlen_attn" in n and "backward" in n]
    assert len(forward) == len(backward) == SIZES["num_hidden_layers"]
    assert not [n for n in seen.names if "scaled_dot_product" in n or "softmax.int" in n]


class TestWhatItDoesNotDo:
    def test_models_that_ask_for_more_are_named(self) -> None:
        assert "caps its attention" in str(attention.unfit(build("Gemma2", {}).config))
        assert "520 wide" in str(attention.unfit(transformers.LlamaConfig(head_dim=520)))
        assert attention.unfit(build("Llama", {}).config) is None
        assert "dropout in its attention" in str(attention.unfit(build("Llama", {"attention_dropout": 0.1}).config))
        gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=9))
        assert "dropout in its attention" in str(attention.why_masked(gpt2, torch.device("cpu"), torch.float32))
        bloom = transformers.BloomForCausalLM(
            transformers.BloomConfig(n_layer=1, hidden_size=8, n_head=1, vocab_size=9)
        )
        assert "BloomForCausalLM attends by itself" in str(
            attention.why_masked(bloom, torch.device("cpu"), torch.float32)
        )
        assert "alone" in str(attention.why_masked(build("Llama", {}), torch.device("mps"), torch.bfloat16))

    def test_a_model_that_loses_the_borders_is_found_before_it_is_trained(self) -> None:
        nemotron = build("Nemotron", {})
        assert "does not hand the examples' borders" in str(
            attention.why_masked(nemotron, torch.device("cpu"), torch.float32)
        )

    def test_a_cpu_has_it_in_any_type(self) -> None:
        for dtype in (torch.float32, torch.bfloat16):
            assert attention.why_masked(build("Llama", {}), torch.device("cpu"), dtype) is None

    @pytest.mark.parametrize(
        ("keys", "said"),
        [({}, "does not hand the examples' borders"), ({"softcap": 5.0}, "`softcap`"), ({"dropout": 0.1}, "dropout")],
    )
    def test_it_refuses_rather_than_computes_something_else(self, keys: dict[str, Any], said: str) -> None:
        q = torch.zeros(1, 2, 4, 8)
        borders = {"cu_seq_lens_q": torch.tensor([0, 4], dtype=torch.int32), "max_length_q": 4} if keys else {}
        with pytest.raises(TrainError, match=said):
            attention.packed_attention(torch.nn.Linear(1, 1).train(), q, q, q, None, **borders, **keys)
