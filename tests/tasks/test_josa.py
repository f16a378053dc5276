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


# Words by the sound they end in, an underscore for a space in one.
CONSONANT = """
책 물건 사람 집 밥 학교생활의_끝 감정 긍정 부정 혐오_발언 일반_발언 모순 중립 없음 정답 원인 거짓 참
동일한_의미임 문제없음 부산항 강원도민 대한민국_국민 청원 법원 병원 예산 교육 환경 안전 행정 국방
통일안 언론 육아/교육 교통/건축 인종/국적 3 6 0 10 13 16 100 1,000 30 60 300 2.50 3.6 1.3 20 90 110
1600 2000 10,000 10000000000000000 5kg 10kg 100g 3.5kg 250mg 20t 1_kg 7_g 40㎏ kg 90min 3/4 6/7
10/13 3/5 M N FM RPM CNN LAN VPN ATM iPhone Game Chrome Club Web God York New_York Book Facebook
Slack Stack Shop Map App Laptop Net Chat Bot Reddit Music King Ring Song Amazon Python Zoom Team
Samsung Big Bag Job Lab C# F# Line Notion '책' "사람" (책) 책! 책?! [집] 『책』 책... '사람'! 책(冊)
사람_(인간) '수학_(학문)' "집(家)" 물건(物件)! '밥_(음식)'. ㅋㅋ ㄱ ㅂ ㅎㅎㅎ ㄴ 값 닭 삶 흙 앉 많
부엌 꽃 낮 옆 밖 낫 젖 솥 숲 500₩
"""
VOWEL = """
사과 나무 바다 영화 노래 학교 친구 의사 간호사 한국어 표제어 위치 정치 경제 뉴스 리뷰 통과
여성이나_남자 결과 전제 가설의_종류 숫자 지구 2 4 5 9 12 14 15 19 22 1.2 3.4 0.5 2,024 99 45 3.9 7.5
1000000000000 35 52 10km 3cm 2m 5mm 100m 2_km km cm 3ml 1L 500mL 20W 220V 60Hz 16GB 512MB 1TB 5ha
3m² 4cm³ 8㎞ 30℃ 40% 5° 3kWh 100kcal 2/3_말고_4/5 2/3 5/6 9/10 A B C D E F G H I J K O P Q S T U V W
X Y Z KBS MBC AI PC USB DNA SNS Twitter Computer Server YouTube Microsoft Windows Instagram_사용자
Android iPad Blog Tag Bit Set GitHub Hub Network Park Link Java Tesla Nvidia Meta Space Office Store
Code Cloud Word Linux Unix Kubernetes Ray Red Kid Bug Youtube Netflix '사과' "나무" (바다) 사과!
바다?! [노래] 『바다』 사과... 포도(葡萄) 포도_(과일) '스칼라_(수학)' "바다_(노래)" '자바_(언어)'!
나라(國) ㅠㅠ ㅜ ㅏ C++ 漢字 !!! 50% 가 나 다 라 마 개미 나비 소 해 배
"""
RIEUL = """
서울 물 말 글 별 달 발 팔 길 일 출발 연말 거울 겨울 오늘 내일 하늘 마을 기술 미술 예술 경찰 검찰
관찰 통일 반려동물 단순_악플 알 쌀 돌 꿀 술 1 7 8 11 17 18 21 28 1.7 2.8 101 1/2 1/3 7/8 8/9 1/10
1/100 L R CAR HTML URL XML SQL DSL Google Apple Email Model Intel Mail Oracle Table Excel Dell
'서울' "물" (서울) 서울! 서울(首都) 서울_(도시) '겨울_(노래)' 10dB 3mol 5J ㄹ
"""
WORDS = [
    (word.replace("_", " "), sound)
    for sound, table in (("consonant", CONSONANT), ("vowel", VOWEL), ("rieul", RIEUL))
    for word in table.split()
]


def test_the_right_particle_after_400_words() -> None:
    assert len({word for word, _ in WORDS}) > 400
    assert [(word, ending(word)) for word, _ in WORDS] == WORDS


def test_a_long_word_is_looked_at_from_its_end_only() -> None:
    """Each of these took seconds, and the time grew with the square of the length."""
    for word, subject in (
        ("0," * 500_000 + "책", "은"),
        ("책" + "!" * 500_000, "은"),
        ("(" * 500_000 + "나무", "는"),
        ("나무(" + " " * 500_000 + "책)", "은"),  # no aside is that long
    ):
        assert particle(word, "은/는").endswith(subject)


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
