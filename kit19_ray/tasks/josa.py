"""Korean particles that agree with the word before them: 은/는, 이/가, 을/를, 으로/로 and the like.

Which form is right depends on the sound the word ends in: a consonant (책은, 책으로), a vowel (사과는, 사과로) or ㄹ,
which takes the consonant's form except before 으로 (서울은, 서울로). No published library is both kept up and
complete (tossi 2018, pyjosa 2021, josa 2012), and the rule is short, so it lives here with its tests.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from kit19_ray.errors import TaskError, nearest, quote

Sound = Literal["vowel", "consonant", "rieul"]

# Pair -> (after a consonant, after a vowel).
PAIRS: dict[str, tuple[str, str]] = {
    f"{after_consonant}/{after_vowel}": (after_consonant, after_vowel)
    for after_consonant, after_vowel in (
        ("은", "는"),
        ("이", "가"),
        ("을", "를"),
        ("과", "와"),
        ("으로", "로"),
        ("이다", "다"),
        ("아", "야"),
        ("이라고", "라고"),
        ("이라는", "라는"),
        ("이란", "란"),
        ("이며", "며"),
        ("이나", "나"),
        ("이고", "고"),
        ("이야", "야"),
        ("이에요", "예요"),
    )
}

# Final consonant of a number's last spoken syllable: digits, then the unit that n closing zeros make.
_DIGITS = dict(zip("0123456789", ("영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구"), strict=True))
_UNITS = ("", "십", "백", "천", "만", "만", "만", "만", "억", "억", "억", "억", "조", "조", "조", "조", "경")
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?$")
_FRACTION = re.compile(r"(?<![0-9/.,])([0-9]{1,3})/[0-9]{1,3}$")  # 1/2 is 이분의 일
# Units after a number, and those that nothing else is, as they are read.
_UNITS_READ = {
    "kg": "킬로그램", "g": "그램", "mg": "밀리그램", "t": "톤", "km": "킬로미터", "m": "미터", "cm": "센티미터",
    "mm": "밀리미터", "nm": "나노미터", "l": "리터", "ml": "밀리리터", "dl": "데시리터", "kl": "킬로리터",
    "ha": "헥타르", "w": "와트", "kw": "킬로와트", "kwh": "킬로와트시", "v": "볼트", "a": "암페어", "hz": "헤르츠",
    "khz": "킬로헤르츠", "mhz": "메가헤르츠", "ghz": "기가헤르츠", "db": "데시벨", "kb": "킬로바이트",
    "mb": "메가바이트", "gb": "기가바이트", "tb": "테라바이트", "bps": "비피에스", "kcal": "킬로칼로리",
    "cal": "칼로리", "pa": "파스칼", "hpa": "헥토파스칼", "mol": "몰", "s": "초", "ms": "밀리초", "h": "시간",
    "min": "분", "k": "켈빈", "n": "뉴턴", "j": "줄",
}  # fmt: skip
_COMPATIBLE = re.compile(r"[^\x00-\x7fㄱ-ㆎ가-힣]+")  # ㎏ is kg, m² is m2; a letter such as ㅋ stays one
_ALWAYS_UNITS = frozenset({"kg", "km", "cm", "mm", "mg", "ml"})
_UNIT = re.compile(r"(?:(?P<digit>[0-9]) ?|(?<![A-Za-z]))(?P<unit>[A-Za-z]{1,4})(?P<power>[23]?)$")
# Letters by name: 엘, 엠, 엔 and 알 end in a consonant, 에이, 비, 씨 and the rest do not.
_LETTERS = {"l": "엘", "m": "엠", "n": "엔", "r": "알"}
_LATIN = re.compile(r"(?<![A-Za-z])[A-Za-z]+$")
# Words whose spelling misleads the rules below: 뉴욕, 갓, 빅, 백, but 비트, 세트, 허브.
_WORDS = {
    "york": "욕", "god": "갓", "big": "빅", "bag": "백", "bit": "트", "set": "트", "hub": "브",
    "github": "브", "sub": "브",
}  # fmt: skip
# A word in small letters is read, not spelt: a silent e does not count, -er is 어, a stop after one short vowel closes
# its syllable (넷, 북, 슬랙, 클럽, 앱); d and g do not (아이패드, 블로그).
_READ = (
    (re.compile(r"r$"), "어"),
    (re.compile(r".le$"), "엘"),
    (re.compile(r"[aeiou][mn]e$"), "엔"),
    (re.compile(r"ng$"), "응"),
    (re.compile(r"(?:(?<![aeiou])[aeiou]|oo)(?:ck|pp|tt|[bckpt])$"), "악"),
)
_ASIDE = re.compile(r" ?[(（][^()（）]{0,150}[)）]$")  # 서울(首都): the particle goes with 서울
_SPOKEN_SYMBOLS = "%℃°+#&@$€£₩"  # read aloud, so not skipped as punctuation
_SYMBOLS = {"#": "샵", "₩": "원"}  # the others end in a vowel: 퍼센트, 도, 플러스, 앤드, 달러
_TAIL = 200  # characters of a word that are looked at


def particle(word: object, pair: str) -> str:
    """`word` with the form of `pair` that agrees with it, such as "사과를" for ("사과", "을/를").

    Closing quotes, brackets and punctuation are looked through, and so is an aside in parentheses. A word whose last
    sign has no reading we know (Hanja, kana, emoji, %) takes the form after a vowel.

    Raises:
        TaskError: the pair is unknown, or the word is empty.
    """
    check_pair(pair)
    text = str(word)
    if not text.strip():
        raise TaskError(f"particle({quote(pair)}): there is no word to attach it to")
    after_consonant, after_vowel = PAIRS[pair]
    sound = ending(text)
    if sound == "vowel" or (sound == "rieul" and pair == "으로/로"):
        return text + after_vowel
    return text + after_consonant


def check_pair(pair: str) -> None:
    """Raises TaskError when `pair` is not one of `PAIRS`."""
    if pair not in PAIRS:
        raise TaskError(f"particle({quote(pair)}): not one of {', '.join(PAIRS)}{nearest(pair, PAIRS)}")


def ending(text: str) -> Sound:
    """The sound that `text` ends in when read aloud."""
    text = _COMPATIBLE.sub(lambda sign: unicodedata.normalize("NFKC", sign[0]), unicodedata.normalize("NFC", text))
    while True:
        quoted = _without_closing_signs(text, keep=")）")
        aside = _ASIDE.search(quoted)
        if aside is None or not _without_closing_signs(quoted[: aside.start()]):
            break
        text = quoted[: aside.start()]
    bare = _without_closing_signs(text)
    if not bare:
        return "vowel"
    if bare[-1] in _SPOKEN_SYMBOLS:
        return _syllable(_SYMBOLS.get(bare[-1], bare[-1])[-1])
    if unit := _UNIT.search(bare):
        read = _UNITS_READ.get(unit["unit"].lower())
        if read and (unit["digit"] or unit["unit"] in _ALWAYS_UNITS):
            return _syllable(read[-1])
    if fraction := _FRACTION.search(bare):
        return _syllable(_spoken_number(fraction[1]))
    if number := _NUMBER.search(bare[-40:]):
        return _syllable(_spoken_number(number.group()))
    if latin := _LATIN.search(bare):
        return _spoken_latin(latin.group())
    return _syllable(bare[-1])


def _without_closing_signs(text: str, keep: str = "") -> str:
    """The last characters of `text`, less the signs at their end that are not read; those of `keep` stay."""
    end = len(text)
    while end and not text[end - 1].isalnum() and text[end - 1] not in _SPOKEN_SYMBOLS + keep:
        if unicodedata.category(text[end - 1])[0] not in "PZSCM":
            break
        end -= 1
    return text[max(0, end - _TAIL) : end]


def _syllable(char: str) -> Sound:
    """The sound at the end of one Hangul syllable, or of the name of one letter of it (ㅋ is 키읔)."""
    if "가" <= char <= "힣":
        final = (ord(char) - ord("가")) % 28
        return "vowel" if final == 0 else "rieul" if final == 8 else "consonant"
    if "ㄱ" <= char <= "ㅎ":
        return "rieul" if char == "ㄹ" else "consonant"
    return "vowel"


def _spoken_number(number: str) -> str:
    """The last syllable of a number as it is said: 100 is 백, 2.50 is 영, 20 is 십."""
    if "." in number:
        return _DIGITS[number[-1]]
    digits = number.replace(",", "")
    zeros = len(digits) - len(digits.rstrip("0"))
    if zeros == 0 or zeros == len(digits):
        return _DIGITS[digits[-1]]
    return _UNITS[min(zeros, len(_UNITS) - 1)]


def _spoken_latin(word: str) -> Sound:
    if read := _WORDS.get(word.lower()):
        return _syllable_end(read)
    if len(word) > 1 and word[-1].islower():
        for pattern, syllable in _READ:
            if pattern.search(word.lower()):
                return _syllable_end(syllable)
    return _syllable_end(_LETTERS.get(word[-1].lower(), "이"))


def _syllable_end(name: str) -> Sound:
    return _syllable(name[-1])
