"""Texts of tokens: they add up to the text, and every log-probability has a name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.serve import token_text


@given(st.text(max_size=40))
def test_texts_of_tokens_add_up_to_the_text(tiny_tokenizer: Any, text: str) -> None:
    ids = tiny_tokenizer.encode(text, add_special_tokens=False)
    texts = token_text.token_texts(tiny_tokenizer, ids)
    assert len(texts) == len(ids) and "".join(texts) == text == token_text.decode(tiny_tokenizer, ids)


def test_a_character_of_several_tokens_belongs_to_the_last(tiny_tokenizer: Any) -> None:
    ids = tiny_tokenizer.encode("뷁", add_special_tokens=False)
    assert len(ids) == 3, "a character the tokenizer never saw is three bytes"
    assert token_text.token_texts(tiny_tokenizer, ids) == ["", "", "뷁"]
    assert token_text.offsets(["가나", "", "다"], start=5) == [5, 7, 7]


def test_bytes_that_never_become_a_character_are_shown_as_such(tiny_tokenizer: Any) -> None:
    first = tiny_tokenizer.encode("뷁", add_special_tokens=False)[0]
    texts = token_text.token_texts(tiny_tokenizer, [first, first])
    assert "".join(texts) == token_text.decode(tiny_tokenizer, [first, first])


def test_tokens_without_a_text_of_their_own_are_named_by_id(tiny_tokenizer: Any) -> None:
    half = tiny_tokenizer.encode("뷁", add_special_tokens=False)[0]
    whole = tiny_tokenizer.encode("가", add_special_tokens=False)[0]
    named = token_text.named(tiny_tokenizer, {half: -2.0, whole: -1.0})
    assert list(named.values()) == [-1.0, -2.0] and f"token_id:{half}" in named


@pytest.mark.parametrize("values", [{}, {5: -1.0}])
def test_no_value_is_lost(tiny_tokenizer: Any, values: dict[int, float]) -> None:
    assert sorted(token_text.named(tiny_tokenizer, values).values()) == sorted(values.values())
