from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.errors import TaskError
from kit19_ray.tasks.josa import PAIRS, ending, particle

SYLLABLES = st.characters(min_codepoint=ord("가"), max_codepoint=ord("힣"))


def has_final(syllable: str) -> str:
    """The final consonant by Unicode's own decomposition, not by the arithmetic under test."""
    jamo = unicodedata.normalize("NFD", syllable)
    return jamo[2] if len(jamo) == 3 else ""


@given(word=st.text(SYLLABLES, min_size=1, max_size=5), pair=st.sampled_from(sorted(PAIRS)))
def test_the_form_follows_the_final_consonant_of_the_last_syllable(word: str, pair: str) -> None:
    final = has_final(word[-1])
    after_consonant, after_vowel = pair.split("/")
    vowel_form = not final or (pair == "으로/로" and final == "\u11af")  # ㄹ
    assert particle(word, pair) == word + (after_vowel if vowel_form else after_consonant)


def test_every_hangul_syllable() -> None:
    for code in range(ord("가"), ord("힣") + 1):
        final = has_final(chr(code))
        assert ending(chr(code)) == ("vowel" if not final else "rieul" if final == "\u11af" else "consonant")


@given(
    word=st.text(SYLLABLES, min_size=1, max_size=3),
    signs=st.text(st.sampled_from("'\"”’.,!?…)]』~ ❤"), max_size=3),
    pair=st.sampled_from(sorted(PAIRS)),
)
def test_closing_signs_are_looked_through(word: str, signs: str, pair: str) -> None:
    form = particle(word, pair).removeprefix(word)
    assert particle(word + signs, pair) == word + signs + form


@given(word=st.text(SYLLABLES, min_size=1), pair=st.sampled_from(sorted(PAIRS)))
def test_decomposed_text_reads_the_same(word: str, pair: str) -> None:
    decomposed = unicodedata.normalize("NFD", word)
    assert unicodedata.normalize("NFC", particle(decomposed, pair)) == particle(word, pair)


@pytest.mark.parametrize(
    ("word", "subject", "direction"),
    [
        ("사과", "사과는", "사과로"),
        ("책", "책은", "책으로"),
        ("서울", "서울은", "서울로"),
        ("여성/가족, 남성", "여성/가족, 남성은", "여성/가족, 남성으로"),
        # digits as they are said: 영 일 이 삼 사 오 육 칠 팔 구, and the unit that closing zeros make
        ("0", "0은", "0으로"),
        ("1", "1은", "1로"),
        ("2", "2는", "2로"),
        ("3", "3은", "3으로"),
        ("4", "4는", "4로"),
        ("5", "5는", "5로"),
        ("6", "6은", "6으로"),
        ("7", "7은", "7로"),
        ("8", "8은", "8로"),
        ("9", "9는", "9로"),
        ("10", "10은", "10으로"),
        ("1,000", "1,000은", "1,000으로"),
        ("1000000000000", "1000000000000는", "1000000000000로"),  # 조
        ("2.50", "2.50은", "2.50으로"),
        ("3.2", "3.2는", "3.2로"),
        # letters by name; small-letter words as they are read
        ("DNA", "DNA는", "DNA로"),
        ("HTML", "HTML은", "HTML로"),
        ("FM", "FM은", "FM으로"),
        ("CAR", "CAR은", "CAR로"),
        ("Google", "Google은", "Google로"),
        ("iPhone", "iPhone은", "iPhone으로"),
        ("Twitter", "Twitter는", "Twitter로"),
        ("King", "King은", "King으로"),
        ("Facebook", "Facebook은", "Facebook으로"),
        ("Microsoft", "Microsoft는", "Microsoft로"),
        # an aside belongs to nobody, a word wholly in brackets to itself
        ("서울(首都)", "서울(首都)은", "서울(首都)로"),
        ("포도 (과일)", "포도 (과일)는", "포도 (과일)로"),
        ("(책)", "(책)은", "(책)으로"),
        ("ㅋㅋ", "ㅋㅋ은", "ㅋㅋ으로"),
        ("ㅠㅠ", "ㅠㅠ는", "ㅠㅠ로"),
        # signs that are read aloud, and signs whose reading we do not know
        ("50%", "50%는", "50%로"),
        ("漢字", "漢字는", "漢字로"),
        ("!!!", "!!!는", "!!!로"),
    ],
)
def test_examples(word: str, subject: str, direction: str) -> None:
    assert particle(word, "은/는") == subject
    assert particle(word, "으로/로") == direction


@given(word=st.text(min_size=1).filter(str.strip), pair=st.sampled_from(sorted(PAIRS)))
def test_any_word_gets_one_of_the_two_forms(word: str, pair: str) -> None:
    assert particle(word, pair).removeprefix(word) in pair.split("/")


def test_an_unknown_pair_names_the_allowed_ones() -> None:
    with pytest.raises(TaskError, match="은/는, 이/가") as caught:
        particle("책", "은는")
    assert "did you mean '은/는'" in str(caught.value)


@pytest.mark.parametrize("word", ["", "  ", "\n"])
def test_there_must_be_a_word(word: str) -> None:
    with pytest.raises(TaskError, match="no word"):
        particle(word, "은/는")
