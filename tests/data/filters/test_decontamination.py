"""Rows that hold an evaluation item, as it is, spaced anew or with a word changed; and rows that do not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.filters import decontamination
from kit19_ray.data.filters.ngrams import letters

WORDS = [
    "아침", "산책길", "강가", "할머니", "자전거", "도서관", "고양이", "우체국", "달리기", "빗방울",
    "창문틀", "기차역", "여행자", "노을빛", "사진첩", "옥수수", "손수건", "바닷가", "돌다리", "종이배",
    "느티나무", "시냇물", "감나무", "장독대", "대청마루", "눈사람", "메아리", "반딧불", "풀벌레", "소나기",
]  # fmt: skip


def sentence(seed: int, words: int = 9) -> str:
    return " ".join(random.Random(seed).sample(WORDS, words))


ITEMS = {
    "single": [[sentence(i)] for i in range(40)],
    "pair": [[sentence(100 + i, 12), sentence(200 + i, 5)] for i in range(40)],
    "short": [["오늘은 정말 즐거웠다"], ["재미있어요"]],
}
INDEX = decontamination.build(ITEMS.items(), 0.8)


def match(*row: str) -> str | None:
    return INDEX.match([[letters(text) for text in row]])[0]


@given(st.integers(0, 39), st.integers(0, 8), st.sampled_from(["", "  ", ", ", "!? ", "\n"]))
def test_a_leak_is_found_however_it_is_written(item: int, changed: int, gap: str) -> None:
    words = ITEMS["single"][item][0].split()
    assert match(gap.join(words)) == "single"
    assert match(f"이런 글이 있었다. {' '.join(words)} 그렇다고 한다.") == "single"
    words[changed] = "가로등"
    assert match(" ".join(words)) == "single"


@given(st.integers(0, 39))
def test_an_item_of_two_texts_needs_both(item: int) -> None:
    first, second = ITEMS["pair"][item]
    assert match(first, second) == "pair"
    assert match(second, first) == "pair"
    assert match(f"{first} {second}") == "pair"
    assert match(first, sentence(900 + item, 5)) is None
    assert match(second) is None


def test_a_short_text_counts_as_a_whole_field_only() -> None:
    assert match("오늘은, 정말 즐거웠다!") == "short"
    assert match("오늘은 정말 즐거웠다고 친구가 말했다") is None
    assert match("재미있어요") is None  # anybody's


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=4, max_size=14), min_size=1, max_size=30))
def test_rows_do_not_depend_on_their_company(rows: list[list[str]]) -> None:
    texts = [[letters(" ".join(row))] for row in rows]
    assert INDEX.match(texts) == [INDEX.match([text])[0] for text in texts]


def test_no_items_and_no_rows() -> None:
    empty = decontamination.build([], 0.8)
    assert empty.match([["아무글이나여기에있다"]]) == [None]
    assert INDEX.match([]) == []
    assert INDEX.match([[""]]) == [None]


@pytest.mark.parametrize("contained", [0.5, 1.0])
def test_the_share_that_counts_is_the_config_s(contained: float) -> None:
    index = decontamination.build([("set", [[sentence(1, 20)]])], contained)
    most = " ".join(sentence(1, 20).split()[:14])
    assert (index.match([[letters(most)]])[0] == "set") == (contained == 0.5)
