from collections.abc import Callable

import pytest

from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from kit19_ray.sources.readers.wiki import CONTINUATION, clean, is_heading, subject

Reads = Callable[..., list[SourceRow | RejectedRow]]

LEAD = "거문고(, )는 줄이 여섯인 현악기이다. 술대로 줄을 뜯어 소리를 낸다."
MORE = "옛 선비들이 즐겨 탔다. 산조가 이름 높다. &lt;양금신보&gt;는 그 악보를 모은 책이다. 지금도 배우는 사람이 많다."
DOC = f'<doc id="1" url="u" title="거문고 &amp; 술대">\n거문고 &amp; 술대\n\n{LEAD}\n역사.\n{MORE}\n\n</doc>\n'
LOVIT = f" = 거문고 &amp; 술대 = \n\n {LEAD}\n\n = = 역사 = = \n\n {MORE}\n\n"
EMPTY = '<doc id="2" url="u" title="빈 글">\n빈 글\n\n\n</doc>\n'


@pytest.mark.parametrize("data", [DOC, LOVIT])
def test_both_layouts_give_the_same_article(read_text: Reads, data: str) -> None:
    (record,) = read_text("kowiki_text", data)
    assert isinstance(record, SourceRow)
    assert record.line == 1
    assert record.fields["title"] == "거문고 & 술대"
    assert record.fields["first_paragraph"] == "거문고는 줄이 여섯인 현악기이다. 술대로 줄을 뜯어 소리를 낸다."
    assert record.fields["opening"].startswith("거문고는")
    prose = record.fields["opening"] + " " + record.fields["continuation"]
    assert prose.endswith("<양금신보>는 그 악보를 모은 책이다. 지금도 배우는 사람이 많다.")
    assert "역사" not in prose
    assert "역사" in record.fields["text"]


def test_articles_follow_each_other_with_their_lines(read_text: Reads) -> None:
    found = read_text("kowiki_text", EMPTY + DOC)
    assert [(r.line, r.reason if isinstance(r, RejectedRow) else "") for r in found] == [(1, "empty_body"), (6, "")]
    assert [r.line for r in read_text("kowiki_text", LOVIT + LOVIT)] == [1, 9]


def test_broken_articles_are_rejected_alone(read_text: Reads) -> None:
    data = b"".join(
        [
            b"stray\nmore\n",
            DOC.replace("</doc>\n", "").encode(),
            b'<doc id="3">\n\xea\xb0\x80\n</doc>\n',
            DOC.encode().replace("여섯".encode(), b"\xff\xfe"),
            DOC.encode(),
            DOC.replace("</doc>\n", "").encode(),
        ]
    )
    reasons = [r.reason if isinstance(r, RejectedRow) else "ok" for r in read_text("kowiki_text", data)]
    assert reasons == ["stray_text", "unclosed_doc", "malformed_doc", "invalid_utf8", "ok", "unclosed_doc"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [("생애.", True), ("어린 시절.", True), ("= = 역사 = =", True), ("= = = 초기 = = =", True),
     ("개요.", True), ("죽음.", True), ("재임.", True), ("쓰임.", True), ("처음.", True),
     ("먹어 보았음.", False), ("그렇게 하세요.", False), ("= = " * 800 + "x", False),
     ("그는 웃었다.", False), ("정말 그럴까.", False), ("마침표가 없는 짧은 줄", False)],
)  # fmt: skip
def test_headings(line: str, expected: bool) -> None:
    assert is_heading(line) == expected


def test_what_templates_leave_behind() -> None:
    assert clean("지미(, 1924년 ~ )는 &quot;땅콩&quot;<br>이다[[분류:사람]]") == '지미(1924년 ~ )는 "땅콩"이다'
    assert clean("빈 괄호 ()는 사라진다") == "빈 괄호는 사라진다"
    assert clean("수학(數學, )은 《》 학문(學問, , )이다") == "수학(數學)은 학문(學問)이다"


def doc(title: str, *lines: str) -> str:
    return f'<doc id="1" url="u" title="{title}">\n{title}\n\n' + "\n".join(lines) + "\n\n</doc>\n"


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("씨앗에는 다음과 같은 뜻이 있다.", "disambiguation"),
        ("연못은 다음을 가리킨다.", "disambiguation"),
        ("거문고(검은고)는 악기의 하나이자", "unfinished"),
        ("넓이는 formula_1 로 나타낸다. 길이를 곱한다.", "lost_formula"),
    ],
)
def test_what_is_no_article(read_text: Reads, first: str, reason: str) -> None:
    (found,) = read_text("kowiki_text", doc("씨앗", first, MORE))
    assert isinstance(found, RejectedRow)
    assert found.reason == reason


def test_a_continuation_ends_before_a_lost_formula(read_text: Reads) -> None:
    (found,) = read_text("kowiki_text", doc("거문고", LEAD, "이다.", MORE, "길이는 formula_2 이다. 끝이다."))
    assert isinstance(found, SourceRow)
    assert found.fields["continuation"].endswith("많다.")
    assert "이다. 옛" not in found.fields["continuation"]


@pytest.mark.parametrize(
    ("title", "first", "expected"),
    [
        ("김한별", "김한별(金한별, 1901년 3월 13일 ~ 1989년 2월 4일)은 가상의 시인이다.", "person"),
        ("3월 13일", "3월 13일은 그레고리력으로 72번째 날이다.", "date"),
        ("1950년대", "1950년대는 1950년부터 1959년까지를 가리킨다.", "date"),
        ("곱셈", "곱셈은 같은 수를 여러 번 더하는 셈을 말한다. 기호로 적는다.", "term"),
        ("한들 마을", "한들 마을은 강가에 있는 마을이다.", "other"),
    ],
)
def test_what_an_article_is_about(title: str, first: str, expected: str) -> None:
    assert subject(title, first) == expected


@pytest.mark.parametrize("line", ["= " * 300_000 + "x", "[[분류:" * 200_000, "(" + " " * 1_000_000, "(, " * 300_000,
                                  ", " * 400_000, "<a" * 300_000])  # fmt: skip
def test_a_long_line_is_read_in_one_pass(line: str) -> None:
    """Each of these took more than 20 s at a tenth of the length."""
    assert isinstance(clean(line), str)
    assert not is_heading(line)


def test_a_title_with_many_quotes(read_text: Reads) -> None:
    (found,) = read_text("kowiki_text", "<doc " + ' title="' * 100_000 + "\n</doc>\n")
    assert isinstance(found, RejectedRow)
    assert found.reason == "malformed_doc"


def test_the_continuation_is_short_and_ends_with_a_sentence(read_text: Reads) -> None:
    body = " ".join(f"{i}번째 문장은 조금 길게 쓰여 있다." for i in range(200))
    (record,) = read_text("kowiki_text", f'<doc id="1" url="u" title="긴 글">\n긴 글\n\n{body}\n</doc>\n')
    assert isinstance(record, SourceRow)
    assert len(record.fields["continuation"]) <= CONTINUATION
    assert record.fields["continuation"].endswith("다.")
    assert len(record.fields["text"]) == len(body)
