"""Random bytes through every reader: none crashes, and every row becomes a record or a reject.

Rows are counted here by other means than the readers': pieces between line feeds, the standard library's csv, or how
many were written.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import load_catalog
from kit19_ray.sources.readers.base import LocatedFile, RejectedRow, SourceRow
from kit19_ray.sources.readers.hate_speech import read_hatescore
from kit19_ray.sources.readers.registry import READERS
from tests.sources.stranger import source

HEADERS = {
    "apeach": "text,user_age,user_gender,text_topic,class,age,text_topic_eng",
    "unsmile": "문장\t여성/가족\t남성\t성소수자\t인종/국적\t연령\t지역\t종교\t기타 혐오\t악플/욕설\tclean\t개인지칭",
    "hatescore": ",comment,macrolabel,microlabel,source",
    "kobest_boolq": "ID\tText\tQuestion\tAnswer",
    "kobest_copa": "ID\tsentence\tquestion\t1\t2\tAnswer",
    "kobest_hellaswag": "context\tchoice1\tchoice2\tchoice3\tchoice4\tlabel",
    "kobest_wic": "ID\tTarget\tSENTENCE1\tDictionary 1\tLink 1\tSENTENCE2\tDictionary 2\tLink2\tANSWER",
    "kobest_sentineg": "ID\tText\tLabel",
    "kornli": "sentence1\tsentence2\tgold_label",
    "korsts": "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2",
    "kowiki_text": "",
    "pawsx_ko": "id\tsentence1\tsentence2\tlabel",
    "parakqc": "",
    "stylekqc": "act\tsentence",
    "question_pair": "id,qid1,qid2,question1,question2,is_duplicate",
    "nsmc": "id\tdocument\tlabel",
    "sae4k": "",
    "petitions": "",
    "math_korean": "class,problem,code,answer",
    "lbox_summarization": "",
}
DOCUMENTS = {"json": {"keep": ["text", "label"], "drop_empty": ["text"]}, "squad": {}}
"""Readers of whole documents, which only evaluation sets use, with options."""

# What begins so is unpacked, recoded or refused before it is read, so its lines are not those of its bytes.
OTHER_FORMATS = (
    b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff", b"PK\x03\x04", b"PAR1", b"BZh",
    b"\xfd7zXZ\x00", b"\xd0\xcf\x11\xe0", b"%PDF", b"\x00\x05\x16\x07",
)  # fmt: skip
PIECES = [
    b"\t", b",", b'"', b'""', b"\n", b"\r", b"\r\n", b"\xff", b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf",
    "\u2028".encode(), "\u001c".encode(), "\u0085".encode(), "가".encode(), b"0", b"1", b"2.5", b"nan", b"True",
    "원인".encode(), b"NS", b"<doc ", b'<doc id="1" url="" title="\xea\xb0\x80">\n', b"</doc>\n", b" = A = \n",
    b'{"title": "', b'"}', b"\\ud800", b"[", b"]", b"{", b"}", b":", b'"text"', b"null", b"1e999",
    b'{"data": [{"title": "a", "paragraphs": [',
]  # fmt: skip
garbage = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=60).map(b"".join)


SOURCES = load_catalog() | {name: source(name, **options) for name, options in DOCUMENTS.items()}
QUOTED = {n for n, s in SOURCES.items() if s.options.get("quoting") == "csv" or READERS[s.reader] is read_hatescore}
LINED = [n for n in SOURCES if n not in {"kowiki_text", *DOCUMENTS, *QUOTED}]


def delimiter_of(name: str) -> str:
    return str(SOURCES[name].options.get("delimiter", "," if name == "hatescore" else "\t"))


def is_well_formed(text: str, delimiter: str) -> bool:
    """Whether the text is what RFC 4180 defines: a quote opens a cell, is doubled in it, or closes it."""
    cell = rf'(?:"(?:[^"]|"")*"|[^"\r\n{delimiter}]*)'
    return re.fullmatch(rf"(?:{cell}(?:{delimiter}|\r?\n))*{cell}", text) is not None


def found_in(name: str, data: bytes, companion: bytes = b"") -> list[SourceRow | RejectedRow]:
    blobs = {"mem://main": data, "mem://companion": companion}
    beside = (LocatedFile("mem://companion", "companion", "train"),) if name == "stylekqc" else ()
    file = LocatedFile("mem://main", "main", "train", companions=beside)
    return list(SOURCES[name].read(file, lambda uri: io.BytesIO(blobs[uri])))


def count_lines(data: bytes) -> int:
    """Pieces between line feeds; a last one without any bytes is none. A file without any has a Mac's old line ends."""
    if b"\n" not in data and not (data.count(b"\r") == 1 and data.endswith(b"\r")):
        data = data.replace(b"\r", b"\n")
    pieces = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return len(pieces) - (pieces[-1] == b"")


def header_of(name: str) -> bytes:
    return HEADERS[name].encode() + b"\n" if HEADERS[name] else b""


def test_every_reader_is_here() -> None:
    # `instructions` reads no published source; tests/sources/test_instructions.py feeds it rubbish.
    assert {s.reader for s in SOURCES.values()} == set(READERS) - {"instructions"}
    assert set(HEADERS) | set(DOCUMENTS) == set(SOURCES)
    assert {"apeach", "hatescore", "kobest_hellaswag", "question_pair", "math_korean"} == QUOTED


@pytest.mark.parametrize("name", LINED)
@settings(max_examples=60)
@given(data=garbage, other=garbage)
def test_every_line_is_a_record_or_a_reject(name: str, data: bytes, other: bytes) -> None:
    assume(header_of(name) or not data.startswith(OTHER_FORMATS))
    header, beside = header_of(name), b"topic\tsentence\n" + other
    found = found_in(name, header + data, beside)
    first, lines = 1 + bool(header), count_lines(header + data)
    if name == "stylekqc":  # the companion's surplus rows have no line in the file
        assert len(found) == max(lines, count_lines(beside)) - 1
        found = found[: lines - 1]
    assert [r.line for r in found] == list(range(first, lines + 1))


@pytest.mark.parametrize("name", sorted(QUOTED))
@settings(max_examples=60)
@given(data=garbage)
def test_quoted_rows_are_at_most_as_many_as_lines(name: str, data: bytes) -> None:
    whole = header_of(name) + data
    found = found_in(name, whole)
    assert [r.line for r in found] == sorted({r.line for r in found})
    assert all(1 < r.line <= count_lines(whole) for r in found)
    try:
        text = whole.decode()
    except UnicodeDecodeError:
        return
    delimiter = delimiter_of(name)
    if is_well_formed(text, delimiter) and "\0" not in text:  # before 3.11 the csv module refuses NUL
        assert len(found) == len(list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))) - 1


@pytest.mark.parametrize("name", sorted(QUOTED))
@settings(max_examples=60)
@given(data=st.data())
def test_quoted_rows_are_those_that_were_written(name: str, data: st.DataObject) -> None:
    delimiter = delimiter_of(name)
    width = len(HEADERS[name].split(delimiter))
    cell = st.text(alphabet='가a1",\t\n\r\u2028\u001c\u0085\ufeff', max_size=6)
    rows = data.draw(st.lists(st.lists(cell, min_size=width, max_size=width), max_size=4))
    out = io.StringIO(newline="")
    # Between LFs the writer leaves a bare CR unquoted, so there it has to quote all.
    end, quoting = data.draw(st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL)]))
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    found = found_in(name, header_of(name) + out.getvalue().encode())
    assert len(found) == len(rows)
    reasons = {r.reason for r in found if isinstance(r, RejectedRow)}
    assert not reasons & {"too_few_columns", "too_many_columns", "unclosed_quote", "malformed_csv"}


@settings(max_examples=60)
@given(data=garbage)
def test_articles_are_at_most_as_many_as_lines(data: bytes) -> None:
    try:
        found = found_in("kowiki_text", data)
    except SourceError:  # it begins as a packed file or another kind does
        return
    assert [r.line for r in found] == sorted({r.line for r in found})
    assert all(1 <= r.line <= count_lines(data) for r in found)


@settings(max_examples=60)
@given(articles=st.lists(st.lists(st.text(alphabet='가a. ="\t\r\u2028\u001c\u0085\ufeff&<>', max_size=12), max_size=5)))
def test_articles_are_those_that_were_written(articles: list[list[str]]) -> None:
    written = "".join(f'<doc id="1" url="" title="가">\n{"".join(x + chr(10) for x in a)}</doc>\n' for a in articles)
    found = found_in("kowiki_text", written.encode())
    assert len(found) == len(articles)
    assert {r.reason for r in found if isinstance(r, RejectedRow)} <= {"empty_body", "unfinished"}


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=60)
@given(data=garbage)
def test_any_bytes_are_a_source_error_at_worst(name: str, data: bytes) -> None:
    message = ""
    try:
        found_in(name, data, data)
    except SourceError as error:
        message = str(error)
    assert not message or re.match("(main|companion)(, line [0-9]+)?: ", message)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "label", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(values=st.lists(json_values, max_size=8), ascii=st.booleans(), mark=st.booleans())
def test_every_value_of_a_list_is_a_record_or_a_reject(values: list[Any], ascii: bool, mark: bool) -> None:
    data = json.dumps(values, ensure_ascii=ascii).encode()
    found = found_in("json", codecs.BOM_UTF8 * mark + data)
    assert [r.line for r in found] == list(range(1, len(values) + 1))


answers = st.just([]) | st.lists(st.fixed_dictionaries({"text": json_values}), min_size=1, max_size=2)
questions = st.fixed_dictionaries({"question": json_values, "answers": answers})
paragraphs = st.fixed_dictionaries({"context": json_values, "qas": st.lists(questions, max_size=3)})
articles_of_squad = st.fixed_dictionaries({"title": json_values, "paragraphs": st.lists(paragraphs, max_size=3)})


@settings(max_examples=60)
@given(data=st.lists(articles_of_squad, max_size=3))
def test_every_question_is_a_record_or_a_reject(data: list[dict[str, Any]]) -> None:
    found = found_in("squad", json.dumps({"data": data}).encode())
    asked = sum(len(p["qas"]) for article in data for p in article["paragraphs"])
    assert [r.line for r in found] == list(range(1, asked + 1))


@settings(max_examples=60)
@given(value=json_values)
def test_any_json_in_squad_s_place_is_a_source_error_at_worst(value: Any) -> None:
    for document in (value, {"data": value}, {"data": [{"title": "가", "paragraphs": value}]}):
        message = ""
        try:
            found_in("squad", json.dumps(document).encode())
        except SourceError as error:
            message = str(error)
        assert not message or "does not nest as SQuAD 1.1 does" in message
