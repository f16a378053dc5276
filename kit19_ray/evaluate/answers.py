"""What a model wrote against the bare answer, whatever the phrasing around it. Pure text in, figures out.

A template asks for an answer in its own words ("정답: 18", "이 문제의 답은 18입니다."), and a model may use others. So
a short answer counts when it stands in what was written, with at most `PHRASING` letters around it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

PHRASING = 60
"""Letters that may stand around an answer; the longest phrasing of our templates has about 40."""
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?")
_OTHERWISE = {"기타 혐오": ("기타 집단", "그 밖의 집단", "다른 집단")}
_PLACE = re.compile(r"\W*(\d{1,9})\W*(?:번째?\W*)?")


def letters(text: str) -> str:
    """The text in NFC and lower case without spaces and punctuation: quotes and full stops do not matter."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return "".join(c for c in folded if c.isalnum())


def last_number(text: str) -> Fraction | None:
    """The last number written with digits, such as 1,200 or -3.50 or 1/2; None where there is none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    try:
        above, _, below = found[-1].replace(",", "").partition("/")
        return Fraction(above) / Fraction(below or "1")
    except ZeroDivisionError:
        return None


def pick_choice(said: str, words: Sequence[str]) -> int | None:
    """Which of the choices a text names, by its place; None where it names none, or several and opens with none.

    Args:
        words: the bare words of the choices.
    """
    own, names = letters(said), [letters(word) for word in words]
    if own in names and names.count(own) == 1:
        return names.index(own)
    place = _PLACE.fullmatch(said.strip())
    if place and 1 <= int(place[1]) <= len(words):
        return int(place[1]) - 1
    named = [n for n, name in enumerate(names) if name and name in own]
    # 같음 stands in 같음, but also 뜻이 같음: the longer one is meant where both stand.
    named = [n for n in named if not any(names[n] != names[m] and names[n] in names[m] for m in named)]
    if len(named) == 1:
        return named[0]
    opening = [n for n in named if own.startswith(names[n])]
    return opening[0] if len(opening) == 1 else None


def compare(
    said: str, answer: str, answer_type: str | None, whole: bool, names: Iterable[str] = ()
) -> dict[str, float]:
    """The figures of one answer, by its type.

    Args:
        answer: the bare reference.
        answer_type: number, phrase, set, text or code, as in `schemas.EXAMPLE_SCHEMA`; None is taken as text.
        whole: False where decoding was cut at its limit; a text is then compared with as much of the reference.
        names: of a set: everything that a set of the task can hold.

    Returns:
        `exact_match` of all types; `set_f1` of a set; `chrf` (0 to 100) of phrase, text and code; `rouge_l` (0 to 1,
        over letters) of a text.
    """
    if answer_type == "number":
        number, right = last_number(said), last_number(answer)
        # A few problems ask who or which: 빵집.
        return {"exact_match": float(holds(said, answer) if right is None else number == right)}
    if answer_type == "set":
        gold = {letters(name) for name in answer.split(",") if letters(name)}
        found = named_in(said, [*names, *answer.split(",")])
        shared = len(gold & found)
        f1 = 2 * shared / (len(gold) + len(found)) if gold or found else 1.0
        return {"exact_match": float(gold == found), "set_f1": f1}
    reference, text = answer.strip(), said.strip()
    if not whole:
        reference = reference[: len(text)]
    window = within(text, reference)
    out = {"exact_match": float(holds(text, reference)), "chrf": chrf(window, reference)}
    if answer_type in (None, "text"):
        out["rouge_l"] = rouge_l(window, reference)
    return out


def holds(said: str, answer: str) -> bool:
    """Whether a text holds the answer, letter by letter, with at most `PHRASING` letters around and between its parts.

    Parts stand between commas: "교육, 급식을 바꿔 주세요" is held by "분야: 교육 / 제목: 급식을 바꿔 주세요".
    """
    own, right = letters(said), letters(answer)
    if not right:
        return own == right
    place = 0
    for part in filter(None, map(letters, answer.split(","))):
        found = own.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return len(own) - len(right) <= PHRASING


def named_in(said: str, names: Iterable[str]) -> set[str]:
    """The names, as letters, that a text holds; of names within names the longest.

    인종/국적 is held by "특정 인종이나 국적" too, and 기타 혐오 by what templates call it.
    """
    own = letters(said)
    found: set[str] = set()
    for name in sorted(dict.fromkeys(names), key=lambda name: (-len(letters(name)), name)):
        spellings = [[name], name.split("/"), *([other] for other in _OTHERWISE.get(name.strip(), ()))]
        for spelling in spellings:
            parts = [letters(part) for part in spelling]
            if all(part and part in own for part in parts):
                found.add(letters(name))
                for part in parts:
                    own = own.replace(part, "\n")
                break
    return found


def within(said: str, answer: str) -> str:
    """The part of a text that is the answer, where phrasing of at most `PHRASING` characters stands around one."""
    if not answer or len(said) <= len(answer):
        return said
    from rapidfuzz import fuzz

    found = fuzz.partial_ratio_alignment(answer, said)
    if found is None or len(said) - (found.dest_end - found.dest_start) > PHRASING:
        return said
    return said[found.dest_start : found.dest_end]


def chrf(said: str, answer: str) -> float:
    """chrF (Popovic 2015) of a sentence, 0 to 100."""
    return float(_chrf().sentence_score(said, [answer]).score)


@lru_cache(maxsize=1)
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def rouge_l(said: str, answer: str) -> float:
    """ROUGE-L's F1 (Lin 2004) over letters: Korean words carry particles, so words that say the same are unlike."""
    from rapidfuzz.distance import LCSseq

    own, right = letters(said), letters(answer)
    if not own or not right:
        return float(own == right)
    shared = LCSseq.similarity(own, right)
    return 2 * shared / (len(own) + len(right))
