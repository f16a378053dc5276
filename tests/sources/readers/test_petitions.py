from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from kit19_ray.sources.readers.petitions import clean

Reads = Callable[..., list[SourceRow | RejectedRow]]
NOTICE = "[본 게시물의 일부 내용이 국민 청원 요건에 위배되어 관리자에 의해 수정되었습니다]"


def line(title: str, content: str) -> str:
    row = {"category": "행정", "title": title, "content": content, "num_agree": 3}
    return json.dumps(row, ensure_ascii=False) + "\n"


def test_notice_contacts_and_masked_titles(read_text: Reads) -> None:
    data = (
        line("버스를 늘려 주세요", f"버스가 드뭅니다. 연락은 010-1234-5678. {NOTICE}")
        + line("*** 대표 처벌", "글")
        + line("제목", NOTICE)
    )
    first, second, third = read_text("petitions", data)
    assert isinstance(first, SourceRow)
    assert first.fields["content"] == "버스가 드뭅니다. 연락은 ***."
    assert [r.reason for r in (second, third) if isinstance(r, RejectedRow)] == ["masked_title", "empty_field"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("전화 01012345678 주세요", "전화 *** 주세요"),
        ("전화 02-123-4567", "전화 ***"),
        ("주민 번호 901231-1234567", "주민 번호 ***"),
        ("누구는 somebody@example.org 로", "누구는 *** 로"),
        ("예산 1,234,567,890원, 2019-05-31에", "예산 1,234,567,890원, 2019-05-31에"),
        ("제12-345-6789호", "제12-345-6789호"),
    ],
)
def test_contacts_are_masked_and_other_numbers_are_not(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_a_long_text_is_cleaned_in_one_pass() -> None:
    assert clean("a@" * 200_000)
    assert clean("본 게시물의 일부 내용이 " * 50_000)
