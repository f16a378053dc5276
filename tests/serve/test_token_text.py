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
    whole = tiny_tokenizer.encode("a", add_special_tokens=False)[0]
    assert token_text.named(tiny_tokenizer, {half: -2.0, whole: -1.0}) == [
        (whole, "a", -1.0),
        (half, f"token_id:{half}", -2.0),
    ]


@pytest.mark.parametrize("values", [{}, {5: -1.0}])
def test_no_value_is_lost(tiny_tokenizer: Any, values: dict[int, float]) -> None:
    assert sorted(value for _, _, value in token_text.named(tiny_tokenizer, values)) == sorted(values.values())


@given(st.text(max_size=40))
def test_bytes_of_tokens_add_up_to_the_text(tiny_tokenizer: Any, text: str) -> None:
    ids = tiny_tokenizer.encode(text, add_special_tokens=False)
    found = token_text.TokenBytes(tiny_tokenizer)
    assert b"".join(found.of(token) for token in ids) == token_text.decode(tiny_tokenizer, ids).encode()


def test_half_a_character_has_bytes_of_its_own(tiny_tokenizer: Any) -> None:
    found = token_text.TokenBytes(tiny_tokenizer)
    ids = tiny_tokenizer.encode("뷁", add_special_tokens=False)
    assert [found.of(token) for token in ids] == [bytes([byte]) for byte in "뷁".encode()]
    end = tiny_tokenizer.eos_token_id
    assert found.of(end) == tiny_tokenizer.decode([end]).encode()


def test_sentencepieces_own_spelling_of_bytes_and_spaces() -> None:
    class Pieces:
        all_special_ids: tuple[int, ...] = ()
        words = ("<0xEB>", "\u2581가", "나")

        def convert_ids_to_tokens(self, token: int) -> str:
            return self.words[token]

        def decode(self, ids: list[int], **_: Any) -> str:
            return self.words[ids[0]]

    found = token_text.TokenBytes(Pieces())
    assert [found.of(token) for token in range(3)] == [b"\xeb", " 가".encode(), "나".encode()]
