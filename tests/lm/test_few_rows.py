"""A linear layer over few rows is the same function, and nothing but plain layers becomes one."""

from __future__ import annotations

import pytest
import torch
import transformers

from kit19_ray.lm import few_rows
from kit19_ray.lm.few_rows import FewRowsLinear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (8,), (9,), (16, 1), (4, 5), (32,), (33,), (2, 3, 4), (0,)])
def test_the_same_as_linear(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    plain, rows = torch.nn.Linear(24, 40, bias=bias), torch.randn(*shape, 24)
    expected = plain(rows)
    few_rows.use(plain)
    assert type(plain) is FewRowsLinear
    found = plain(rows)
    assert found.shape == expected.shape and found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_it_is_transposed_for_few_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, products = torch.nn.Linear(8, 8, bias=False), []
    few_rows.use(layer)
    monkeypatch.setattr(torch, "mm", lambda a, b, mm=torch.mm: products.append(tuple(b.shape)) or mm(a, b))
    for rows in (1, 8, 9, 32, 33):
        layer(torch.randn(rows, 8))
    assert products == [(8, 9), (8, 32)]


def test_logits_are_not_copied() -> None:
    head = torch.nn.Linear(8, 1 << 14, bias=False)
    few_rows.use(head)
    rows = torch.randn(16, 1, 8)
    torch.testing.assert_close(head(rows), torch.nn.functional.linear(rows, head.weight), rtol=1e-5, atol=1e-6)
    assert not head(rows).is_contiguous()


def test_other_types_and_kinds_stay() -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 4).to(torch.bfloat16),
        torch.nn.Linear(4, 4, device="meta"),
        torch.nn.modules.linear.NonDynamicallyQuantizableLinear(4, 4),
        torch.nn.Linear(4, 4),
    )
    few_rows.use(model)
    assert [type(layer) is FewRowsLinear for layer in model] == [False, False, False, True]


def test_a_tied_head_stays_tied_and_is_saved_as_before() -> None:
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )
    names = list(model.state_dict())
    few_rows.use(model)
    assert type(model.lm_head) is FewRowsLinear
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert list(model.state_dict()) == names
