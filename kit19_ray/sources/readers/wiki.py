"""Wikipedia articles as plain text, in WikiExtractor's layout and in lovit/kowikitext's.

<doc id="5" url="..." title="제목">          = 제목 =
제목                                        첫 문단 ...
                                           = = 역사 = =
첫 문단 ...                                 둘째 문단 ...
역사.
둘째 문단 ...                               = 다음 제목 =
</doc>
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import BinaryIO

from kit19_ray.sources.readers.base import LocatedFile, NoOptions, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.lines import physical_lines
from kit19_ray.sources.readers.text import normalise

MAX_ARTICLE = 4 << 20  # characters; a longer one is a reject, so that memory stays bounded
OPENING = 80  # characters after which the opening ends with its sentence
CONTINUATION = 400  # characters of the continuation at most

_TITLE = re.compile(r"= (?!= )(.+?)(?<! =) =")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,300}>")
_CATEGORY = re.compile(r"\[\[(?:분류|Category|파일|File):[^\[\]]{0,300}\]\]")
# What a removed template leaves in brackets: (, 1924년), (數學, , ), ( ). Spaces are single by then, so that none of
# these looks at a sign more than a few times.
_GAP = re.compile(r"\((?: ?[,;·:]){1,20} ?")
_TRAILING_GAP = re.compile(r"(?: ?[,;·:]){1,20} ?\)")
_EMPTY_BRACKETS = re.compile(r" ?\( ?[,;~·]? ?\)|《 ?》|〈 ?〉|「 ?」|『 ?』")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_FINISHED = re.compile(r"[.!?…。][\"'”’」』)\]]*$")
# A short line with a full stop is a heading unless it ends as a sentence does: 개요., 죽음. and 재임. are nouns.
_VERB_END = re.compile(r"(?:다|까|죠|[어아여해세네데지군에예나가워와려져봐돼]요|[았었했였겠있없]음)\.$")
_LOST = re.compile(r"(?:formula|codice)_[0-9]")  # what WikiExtractor leaves of formulas and code
_LIST_OF_MEANINGS = re.compile(r"다음(?:과 같은|과 같다|을 |를 |의 |이 |은 )|(?:뜻|의미)[이가] 있다|:$")
_LEAST = 5  # characters of a line of prose; "이다." is what is left of one
_PERSON = re.compile(r"[^(.]{1,80}\([^()]{0,120}?(?:[0-9]{1,2}일|[0-9]{3,4}년)(?:\([^()]{0,40}\))? ?[~–-]")
_DATE = re.compile(r"(?:기원전 )?[0-9]{1,4}년(?:대)?|[0-9]{1,2}월(?: [0-9]{1,2}일)?|(?:기원전 )?[0-9]{1,2}세기")
_TERM = re.compile(
    r"(?:(?:말|뜻|의미)한다|가리킨다|이른다|일컫는다|부른다"
    r"|(?:개념|용어|현상|학문|이론|방법|단위|원소|물질|언어|분야|법칙|정리|과정|기술|말|뜻|일종)이다)\.$"
)


def clean(line: str) -> str:
    """A line without entities, tags, category links and the gaps of removed templates."""
    if "&" in line:
        line = html.unescape(line)
    if "<" in line:
        line = _TAG.sub("", line)
    if "[[" in line:
        line = _CATEGORY.sub("", line)
    line = " ".join(line.split())
    if "(" in line:
        line = _TRAILING_GAP.sub(")", _GAP.sub("(", line))
    return normalise(" ".join(_EMPTY_BRACKETS.sub("", line).split()))


def is_heading(line: str) -> bool:
    """Whether a line is a section's heading: `= = 역사 = =`, or short, with a full stop and no verb: `역사.`"""
    if line.startswith("= = ") and line.endswith(" = ="):
        return True
    return len(line) <= 40 and line.endswith(".") and not _VERB_END.search(line) and ". " not in line


def subject(title: str, first_paragraph: str) -> str:
    """What an article is about, as far as its first sentence tells: person, date, term, or other (work, place ...)."""
    if _DATE.fullmatch(title):
        return "date"
    sentence = _SENTENCE_END.split(first_paragraph[:400])[0]
    if _PERSON.match(first_paragraph):
        return "person"
    return "term" if _TERM.search(sentence) else "other"


def _title_of(text: str) -> str | None:
    """The title in `<doc id="5" url="..." title="제목">`; it may hold quotes. None when the line is malformed."""
    text = text.rstrip()
    start = text.find(' title="')
    if start < 0 or not text.endswith('">') or ">" in text[:start] or len(text) < start + 10:
        return None
    return text[start + 8 : -2]


def _upto(sentences: list[str], most: int) -> str:
    taken: list[str] = []
    held = 0
    for sentence in sentences:
        if taken and held + len(sentence) > most:
            break
        taken.append(sentence)
        held += len(sentence) + 1
    text = " ".join(taken)
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0]


def article(line: int, title: str, lines: list[str]) -> SourceRow | RejectedRow:
    """title, text, first_paragraph, opening (its first sentences), continuation (those that follow; may be empty) and
    subject.

    A reject is an article without prose (`empty_body`), one that lists what its title may mean (`disambiguation`), one
    whose first paragraph does not end (`unfinished`) and one that opens with what a formula left (`lost_formula`). A
    continuation ends before such a place.
    """
    title = normalise(html.unescape(title))
    body = [c for c in map(clean, lines) if c]
    if body and body[0] == title:
        del body[0]
    prose = [b for b in body if not is_heading(b) and len(b) > _LEAST]
    if not title or not prose:
        return RejectedRow.of(line, "empty_body" if title else "empty_field", title)
    if _LIST_OF_MEANINGS.search(prose[0][-60:]):
        return RejectedRow.of(line, "disambiguation", prose[0])
    if not _FINISHED.search(prose[0][-20:]):
        return RejectedRow.of(line, "unfinished", prose[0])
    head = " ".join(prose)[: 20 * CONTINUATION]
    sentences = _SENTENCE_END.split(head)
    cut = 1
    while cut < len(sentences) and len(" ".join(sentences[:cut])) < OPENING:
        cut += 1
    opening, rest = " ".join(sentences[:cut]), sentences[cut:]
    if _LOST.search(opening) or _LOST.search(prose[0]):
        return RejectedRow.of(line, "lost_formula", prose[0])
    rest = rest[: next((i for i, sentence in enumerate(rest) if _LOST.search(sentence)), len(rest))]
    fields = {
        "title": title,
        "text": "\n".join(body),
        "first_paragraph": prose[0],
        "opening": opening,
        "continuation": _upto(rest, CONTINUATION) if rest else "",
        "subject": subject(title, prose[0]),
    }
    return SourceRow(line, fields)


class _Article:
    """The article being read."""

    def __init__(self, line: int, title: str, closed_by_tag: bool) -> None:
        self.line, self.title, self.closed_by_tag = line, title, closed_by_tag
        self.lines: list[str] = []
        self.size = 0
        self.fault = ""

    def add(self, text: str) -> None:
        self.size += len(text) + 1
        if self.size > MAX_ARTICLE:
            self.fault = self.fault or "article_too_long"
        else:
            self.lines.append(text)

    def end(self, closed: bool) -> SourceRow | RejectedRow:
        fault = self.fault or ("unclosed_doc" if self.closed_by_tag and not closed else "")
        return RejectedRow.of(self.line, fault, self.title) if fault else article(self.line, self.title, self.lines)


def read_kowiki(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """Articles of a file in either layout; see `article` for the fields.

    Text before the first article or between two is one reject (`stray_text`) a run.
    """
    now: _Article | None = None
    stray = False
    for number, data in enumerate(physical_lines(stream), 1):
        text = ""
        fault = "line_too_long" if data is None else ""
        try:
            text = (data or b"").decode()
        except UnicodeDecodeError:
            fault = "invalid_utf8"
        if fault:
            if now is None:
                yield RejectedRow.of(number, fault, data or b"")
            else:
                now.fault = now.fault or fault
            continue
        in_doc = now is not None and now.closed_by_tag
        doc = text.startswith("<doc ")
        plain = None if in_doc or doc else _TITLE.fullmatch(text.strip())
        if doc or plain:
            if now is not None:
                yield now.end(closed=False)
            title = _title_of(text) if doc else plain[1] if plain else None
            now = _Article(number, title or "", closed_by_tag=doc)
            if title is None:
                now.fault = "malformed_doc"
            stray = False
        elif now is not None and in_doc and text.strip() == "</doc>":
            yield now.end(closed=True)
            now = None
        elif now is not None:
            now.add(text)
        elif text.strip() and not stray:
            stray = True
            yield RejectedRow.of(number, "stray_text", text)
    if now is not None:
        yield now.end(closed=False)
