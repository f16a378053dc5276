"""Rows that hold an evaluation item, as it is, spaced anew or with a word changed; and rows that do not."""

from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.filters import decontamination
from kit19_ray.data.filters.ngrams import normalize_letters

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
LONG_TEXT = " ".join(sentence(7 + i, 12) for i in range(3))


def match(*row: str) -> str | None:
    return INDEX.match([[normalize_letters(text) for text in row]])[0]


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


@pytest.mark.parametrize(
    ("item", "row", "holds"),
    [
        # the row is part of the item: no leak
        ("그 배우 때문에 봤는데 정말 재미있게 봤어요 또 보고 싶다", "정말 재미있게 봤어요", False),
        ("그 배우 때문에 봤는데 정말 재미있게 봤어요 또 보고 싶다", "재미있게 봤어요 정말", False),
        # one run of at most five letters, wherever it stands
        ("어제 본 영화는 정말 지루했다고 친구가 말했다", "어제 본 영화는 정말 재미있었다고 친구가 말했다", True),
        ("어제 본 영화는 정말 지루했다고 친구가 말했다", "그제 본 영화는 정말 지루했다고 친구가 말했다", True),
        ("어제 본 영화는 정말 지루했다고 친구가 말했다", "어제 본 영화는 정말 지루했다고 친구가 하더라", True),
        ("어제 본 영화는 정말 지루했다고 친구가 말했다", "어제 본 영화는 지루했다고 친구가 말했다", True),
        # two runs, or a longer one
        ("어제 본 영화는 정말 지루했다고 친구가 말했다", "그제 본 영화는 정말 지루했다고 언니가 말했다", False),
        ("어제 본 영화는 정말 지루했다고 친구가 말했다", "어제 본 연극은 너무 슬펐다고 친구가 말했다", False),
        # fifteen letters have to be there as they are, fourteen are a whole field or nothing
        ("근데 다른 회사 꺼라는 것은 몰랐었다", "재미있게 봤다. 근데 다른 회사 꺼라는 것은 몰랐었다. 놀랍다.", True),
        ("근데 다른 회사 꺼라는 것은 몰랐었다", "재미있게 봤다. 근데 그런 회사 꺼라는 것은 몰랐었다. 놀랍다.", False),
        ("근데 다른 회사 꺼라는 건 몰랐었다", "재미있게 봤다. 근데 다른 회사 꺼라는 건 몰랐었다. 놀랍다.", False),
        # a fourth of sixteen letters is four
        ("수고 많으셨어요 좋은 하루 되십시오", "고마워요 좋은 하루 되십시오", False),
    ],
)
def test_all_but_one_run_agrees(item: str, row: str, holds: bool) -> None:
    index = decontamination.build([("set", [[item]])], 0.8)
    assert (index.match([[normalize_letters(row)]])[0] == "set") == holds


def test_the_texts_of_an_item_need_places_of_their_own() -> None:
    pair = ["거리에 사람들이 많이 모여 있었다", "거리에 사람들이 많이 모여 있다"]
    index = decontamination.build([("set", [pair, ["역에 있는 기차", "역에 있는 기차"]])], 0.8)
    assert index.match([[normalize_letters(text) for text in pair]]) == ["set"]
    assert index.match([[normalize_letters(pair[0]), normalize_letters("오늘은 날씨가 흐리고 바람이 분다")]]) == [None]
    assert index.match([[normalize_letters("역에 있는 기차"), normalize_letters("기차는 역에 있다")]]) == [None]
    assert index.match([[normalize_letters("역에 있는 기차"), normalize_letters("역에 있는 기차")]]) == ["set"]


def test_where_a_word_makes_another_item_only_the_text_as_it_is_counts() -> None:
    pair = ["한 남자가 무대 위에서 기타를 치고 있다", "어떤 남자가 무대에 올라 기타를 연주한다"]
    near = [pair[0].replace("기타", "북"), pair[1]]
    for exact, found in ((["set"], None), ([], "set")):
        index = decontamination.build([("set", [pair])], 0.8, exact)
        assert index.match([[normalize_letters(text) for text in pair]]) == ["set"]
        assert index.match([[normalize_letters(text) for text in near]]) == [found]


def test_a_long_text_with_several_words_changed_is_held_where_its_words_stand_together() -> None:
    words = LONG_TEXT.split()
    for place in (8, 24):
        words[place] = "가로등"
    index = decontamination.build([("set", [[LONG_TEXT]])], 0.8)
    assert index.match([[normalize_letters(" ".join(words))]]) == ["set"]
    apart = [f"{word} {sentence(500 + i, 20)}" for i, word in enumerate(LONG_TEXT.split())]
    assert index.match([[normalize_letters(" ".join(apart))]]) == [None]


def test_a_row_of_300_000_letters_with_many_leads() -> None:
    """Aligning each lead with the whole row took 45 s."""
    row = "".join(random.Random(3).choices(WORDS, k=100_000))
    assert len(row) > 280_000
    assert len(INDEX._candidates([row])) > 10
    assert INDEX.match([[row]]) == [None]
    assert INDEX.match([[row + normalize_letters(sentence(5))]]) == ["single"]


def test_an_index_goes_through_pickle() -> None:
    again = pickle.loads(pickle.dumps(INDEX))
    rows = [[normalize_letters(sentence(i))] for i in range(60)]
    assert again.match(rows) == INDEX.match(rows)


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=4, max_size=14), min_size=1, max_size=30))
def test_rows_do_not_depend_on_their_company(rows: list[list[str]]) -> None:
    texts = [[normalize_letters(" ".join(row))] for row in rows]
    assert INDEX.match(texts) == [INDEX.match([text])[0] for text in texts]


def test_no_items_and_no_rows() -> None:
    empty = decontamination.build([], 0.8)
    assert empty.match([["아무글이나여기에있다"]]) == [None]
    assert INDEX.match([]) == []
    assert INDEX.match([[""]]) == [None]


@pytest.mark.parametrize("contained", [0.5, 1.0])
def test_the_share_that_counts_is_the_config_s(contained: float) -> None:
    index = decontamination.build([("set", [[LONG_TEXT]])], contained)
    most = " ".join(LONG_TEXT.split()[:24])
    assert (index.match([[normalize_letters(most)]])[0] == "set") == (contained == 0.5)
