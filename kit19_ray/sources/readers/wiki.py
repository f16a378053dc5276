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

from kit19_ray.sources.readers.base import LocatedFile, NoOptions, Opener, Raw, Reject
from kit19_ray.sources.readers.lines import physical_lines
from kit19_ray.sources.readers.text import normalise

MAX_ARTICLE = 4 << 20  # characters; a longer one is a reject, so that memory stays bounded
OPENING = 80  # characters after which the opening ends with its sentence
CONTINUATION = 400  # characters of the continuation at most

_DOC = re.compile(r'<doc\b[^>]*?\btitle="(.*)">\s*')
_TITLE = re.compile(r"= (?!= )(.+?)(?<! =) =")
_SECTION = re.compile(r"(?:= ){2,}.+(?: =){2,}")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,300}>")
_CATEGORY = re.compile(r"\[\[(?:분류|Category|파일|File):[^\]]*\]\]")
_GAP = re.compile(r"\(\s*(?:[,;·:]\s*)+")  # what a removed template leaves after a bracket
_EMPTY_BRACKETS = re.compile(r"\s?\(\s*[,;~·]?\s*\)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_VERB_END = ("다.", "요.", "까.", "죠.", "음.", "임.")


def clean(line: str) -> str:
    """A line without entities, tags, category links and the gaps of removed templates."""
    if "&" in line:
        line = html.unescape(line)
    if "<" in line:
        line = _TAG.sub("", line)
    if "[[" in line:
        line = _CATEGORY.sub("", line)
    if "(" in line:
        line = _EMPTY_BRACKETS.sub("", _GAP.sub("(", line))
    return normalise(line)


def is_heading(line: str) -> bool:
    """Whether a line is a section's heading: `= = 역사 = =`, or short, with a full stop and no verb: `역사.`"""
    if _SECTION.fullmatch(line):
        return True
    return len(line) <= 40 and line.endswith(".") and not line.endswith(_VERB_END) and ". " not in line


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


def article(line: int, title: str, lines: list[str]) -> Raw | Reject:
    """title, text, first_paragraph, opening (its first sentences) and continuation (those that follow; may be empty).

    An article without prose is a reject (`empty_body`).
    """
    title = normalise(html.unescape(title))
    body = [c for c in map(clean, lines) if c]
    if body and body[0] == title:
        del body[0]
    prose = [b for b in body if not is_heading(b)]
    if not title or not prose:
        return Reject.of(line, "empty_body" if title else "empty_field", title)
    head = " ".join(prose)[: 20 * CONTINUATION]
    sentences = _SENTENCE_END.split(head)
    cut = 1
    while cut < len(sentences) and len(" ".join(sentences[:cut])) < OPENING:
        cut += 1
    fields = {
        "title": title,
        "text": "\n".join(body),
        "first_paragraph": prose[0],
        "opening": " ".join(sentences[:cut]),
        "continuation": _upto(sentences[cut:], CONTINUATION) if sentences[cut:] else "",
    }
    return Raw(line, fields)


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

    def end(self, closed: bool) -> Raw | Reject:
        fault = self.fault or ("unclosed_doc" if self.closed_by_tag and not closed else "")
        return Reject.of(self.line, fault, self.title) if fault else article(self.line, self.title, self.lines)


def read_kowiki(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[Raw | Reject]:
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
                yield Reject.of(number, fault, data or b"")
            else:
                now.fault = now.fault or fault
            continue
        in_doc = now is not None and now.closed_by_tag
        doc = text.startswith("<doc ")
        plain = None if in_doc or doc else _TITLE.fullmatch(text.strip())
        if doc or plain:
            if now is not None:
                yield now.end(closed=False)
            opened = _DOC.fullmatch(text) if doc else plain
            now = _Article(number, opened[1] if opened else "", closed_by_tag=doc)
            if opened is None:
                now.fault = "malformed_doc"
            stray = False
        elif now is not None and in_doc and text.strip() == "</doc>":
            yield now.end(closed=True)
            now = None
        elif now is not None:
            now.add(text)
        elif text.strip() and not stray:
            stray = True
            yield Reject.of(number, "stray_text", text)
    if now is not None:
        yield now.end(closed=False)
