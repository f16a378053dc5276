"""Petitions to the Blue House: JSON Lines whose texts carry an office's notice, and now and then somebody's number.

    content   ... 바꿔 주십시오. [본 게시물의 일부 내용이 국민 청원 요건에 위배되어 관리자에 의해 수정되었습니다]
    title     *** 의원을 처벌해 주세요          masked by the office: no title to learn, a reject (`masked_title`)

The notice is left out, telephone and identity numbers and mail addresses become ***, as the office masks names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from kit19_ray.sources.readers.base import LocatedFile, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.jsonl import JsonlOptions, read_jsonl
from kit19_ray.sources.readers.text import normalise

_NOTICE = re.compile(r"\[?\s?본 게시물의 일부 내용이.{0,80}?수정되었습니다\.?\s?\]?")
_CONTACT = re.compile(
    r"(?<![0-9])(?:01[016789][-. )]{0,2}[0-9]{3,4}[-. ]?[0-9]{4}|0[2-6][0-9]?[-)][0-9]{3,4}-[0-9]{4}"
    r"|[0-9]{6} ?- ?[1-4][0-9*]{6})(?![0-9])"
    r"|(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}"
)


def clean(text: str) -> str:
    """A petition's text without the office's notice, with contacts masked."""
    if "본 게시물의" in text:
        text = _NOTICE.sub("", text)
    return normalise(_CONTACT.sub("***", text))


def read_petitions(
    options: JsonlOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """The fields of `jsonl`, title and content cleaned; a masked title is a reject."""
    for raw in read_jsonl(options, file, stream, opener):
        if isinstance(raw, RejectedRow):
            yield raw
            continue
        fields = raw.fields | {name: clean(raw.fields[name]) for name in ("title", "content") if name in raw.fields}
        if "*" in fields.get("title", ""):
            yield RejectedRow.of(raw.line, "masked_title", fields["title"])
        elif "" in (fields.get("title"), fields.get("content")):
            yield RejectedRow.of(raw.line, "empty_field", str(raw.fields))
        else:
            yield SourceRow(raw.line, fields, raw.group)
