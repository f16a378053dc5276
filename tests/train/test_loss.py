"""The loss: exact on packed rows, whoever computes which part; packed examples do not see each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.errors import DataError
from kit19_ray.lm import pretrained
from kit19_ray.train.loss import PackedLM, target_positions

VOCAB = 97


def neox() -> Any:
    return pretrained.build_gpt_neox(
        hidden_size=32,
        layers=2,
        heads=4,
        intermediate_size=None,
        vocab_size=VOCAB,
        seq_len=64,
        eos_token_id=0,
        pad_token_id=0,
        seed=3,
    )


def other(name: str) -> Any:
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, name.replace("ForCausalLM", "Config"))(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return getattr(transformers, name)(config)


def pack(examples: list[tuple[int, int]], length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One packed row of examples given as (prompt tokens, answer tokens)."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, VOCAB, length).astype(np.int32)
    labels = np.full(length, IGNORE, np.int32)
    places = np.zeros(length, np.int32)
    at = 0
    for prompt, answer in [*examples, (length - sum(map(sum, examples)), 0)]:
        places[at : at + prompt + answer] = np.arange(prompt + answer)
        labels[at + prompt : at + prompt + answer] = ids[at + prompt : at + prompt + answer]
        at += prompt + answer
    return ids, labels, places


def tensors(ids: np.ndarray, labels: np.ndarray, places: np.ndarray) -> dict[str, torch.Tensor]:
    positions, targets = target_positions(labels, places)
    arrays = {"input_ids": ids, "position_ids": places, "positions": positions, "targets": targets}
    return {name: torch.from_numpy(np.asarray(a, np.int64)) for name, a in arrays.items()}


ROWS = [np.stack(column) for column in zip(pack([(5, 7), (9, 3)], 32), pack([(20, 12)], 32, seed=1), strict=True)]


def test_the_positions_asked_are_those_before_the_labels() -> None:
    labels = np.array([[IGNORE, IGNORE, 7, 8, IGNORE, 9], [IGNORE, 4, IGNORE, IGNORE, IGNORE, IGNORE]], np.int32)
    places = np.array([[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 4, 5]], np.int32)
    positions, targets = target_positions(labels, places)
    assert positions.tolist() == [1, 2, 4, 6]
    assert targets.tolist() == [7, 8, 9, 4]


@pytest.mark.parametrize("column", [0, 3])
def test_a_learned_first_token_is_refused(column: int) -> None:
    labels = np.full((2, 6), IGNORE, np.int32)
    labels[1, column] = 5
    places = np.array([[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]], np.int32)
    with pytest.raises(DataError, match="packed row 1 .* learns the first token"):
        target_positions(labels, places)


def test_the_sum_is_that_of_the_shifted_labels() -> None:
    model = neox()
    batch = tensors(*ROWS)
    logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    shifted = torch.from_numpy(ROWS[1].astype(np.int64))[:, 1:]
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, VOCAB), shifted.reshape(-1), ignore_index=IGNORE, reduction="sum"
    )
    # Two orders of one fp32 sum over 22 labels.
    torch.testing.assert_close(PackedLM(model)(**batch), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["GPTNeoXForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"])
def test_the_head_on_labels_alone_changes_nothing(name: str) -> None:
    model = neox() if name == "GPTNeoXForCausalLM" else other(name)
    batch = tensors(*ROWS)
    losses, gradients = [], []
    for head_on_labels in (False, True):
        model.zero_grad()
        loss = PackedLM(model, head_on_labels)(**batch)
        loss.backward()
        losses.append(loss.detach())
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    # Matrix products over other numbers of rows may sum in another order: fp32 rounding, no more.
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    for parameter, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][parameter], rtol=1e-4, atol=1e-6)


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("input_ids", "position_ids")}


def test_a_linear_head_is_found_by_looking() -> None:
    batch = inputs(tensors(*ROWS))
    for model in (neox(), other("LlamaForCausalLM"), other("GemmaForCausalLM")):
        lm = PackedLM(model.eval())
        assert lm.find_head(**batch) and lm.head_on_labels


def test_a_head_that_scales_or_caps_is_run_whole() -> None:
    import transformers

    config = transformers.GraniteConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, logits_scaling=8.0,
    )  # fmt: skip
    batch = inputs(tensors(*ROWS))
    scaled = PackedLM(transformers.GraniteForCausalLM(config).eval())
    assert not scaled.find_head(**batch)
    capped = other("Gemma2ForCausalLM")
    assert capped.config.final_logit_softcapping
    assert not PackedLM(capped.eval()).find_head(**batch)


def test_rows_without_labels_cost_nothing_and_break_nothing() -> None:
    model = neox()
    ids, labels, places = pack([], 16)
    loss = PackedLM(model)(**tensors(ids[None], labels[None], places[None]))
    loss.backward()
    assert loss.item() == 0
    assert all(float(p.grad.abs().sum()) == 0 for p in model.parameters())


lengths = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 8)), min_size=2, max_size=4)


@settings(max_examples=25)
@given(lengths, st.integers(0, 2**31))
def test_a_packed_example_has_the_logits_it_has_alone(examples: list[tuple[int, int]], seed: int) -> None:
    model = neox().eval()
    ids, _, places = pack(examples, sum(map(sum, examples)) + 5, seed)
    with torch.no_grad():
        packed = PackedLM(model).logits(
            torch.from_numpy(ids[None].astype(np.int64)), torch.from_numpy(places[None].astype(np.int64))
        )[0]
        at = 0
        for length in map(sum, examples):
            alone = model(input_ids=torch.from_numpy(ids[None, at : at + length].astype(np.int64))).logits[0]
            # fp32, logits of order 0.1: 1e-5 is room for another order of sums, not for another example's tokens.
            torch.testing.assert_close(packed[at : at + length], alone, rtol=0, atol=1e-5)
            at += length
