import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.sources.readers.text import has_surrogate, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  가나다  ", "가나다"),
        ("\u1100\u1161", "가"),  # conjoining jamo compose
        ("가\u00a0나", "가 나"),
        ("\ufeff가\u200b나\u0008다", "가나다"),
        ("가\u001c나", "가나"),
        ("한 줄\r\n두 줄", "한 줄\n두 줄"),
        ("칸\t칸", "칸\t칸"),
        ("가\u2028나", "가\n나"),
        ("\u1100\u200b\u1161", "가"),  # what stood between them is gone before they compose
        ("가\r나\x0b다\x0c라\x85마", "가 나 다 라 마"),
        ("\u3164\uffa0\u115f", ""),
        ("\u200b\u200d\u2060\ufeff\u00ad", ""),
        ("가\u00ad나\u202e다\u2066라\u200f", "가나다라"),
        ("가\u200d나", "가나"),
        ("❤\ufe0f\u200d🔥", "❤\ufe0f\u200d🔥"),
        ("가\ufe0f", "가"),
        ("👨\u200d👩", "👨\u200d👩"),  # a joiner is part of the picture
        ("", ""),
    ],
)
def test_normal_form(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text())
def test_idempotent_and_clean(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\t\n" for c in once)


def test_half_a_surrogate_pair() -> None:
    assert has_surrogate("가\ud800")
    assert not has_surrogate("가😀")
