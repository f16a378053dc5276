"""Letters and the hashes of their runs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.filters.ngrams import SIZE, hashes, ngram_hashes, normalize_letters

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def test_spaces_punctuation_case_and_laughter_do_not_count() -> None:
    assert normalize_letters("영화가, 정말  좋다!") == normalize_letters("영화가 정말 좋다") == "영화가정말좋다"
    assert normalize_letters("ABC") == normalize_letters("abc")
    assert normalize_letters("ㅋㅋㅋㅋㅋㅋ") == normalize_letters("ㅋㅋ")
    assert normalize_letters("좋다") != normalize_letters("좋다다")
    assert normalize_letters("!?") == ""


@given(texts)
def test_letters_are_their_own_letters(text: str) -> None:
    once = normalize_letters(text)
    assert normalize_letters(once) == once


@given(st.lists(st.text("가나다라마", max_size=12), max_size=8))
def test_a_batch_has_the_hashes_of_its_texts(batch: list[str]) -> None:
    found, owner = ngram_hashes(batch)
    for number, text in enumerate(batch):
        expected = hashes(text) if len(text) >= SIZE else np.zeros(0, np.uint64)
        assert found[owner == number].tolist() == expected.tolist()


@given(st.text("가나다", min_size=1, max_size=30))
def test_equal_windows_and_only_they_have_equal_hashes(text: str) -> None:
    windows = [text[i : i + SIZE] for i in range(max(1, len(text) - SIZE + 1))]
    assert len(set(hashes(text).tolist())) == len(set(windows))
    assert len(hashes(text)) == len(windows)
