"""Random bytes after a good header: no reader crashes, and every row becomes a record or a reject."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import load_catalog
from kit19_ray.sources.formats import LocatedFile, Raw, Reject
from kit19_ray.sources.lines import physical_lines
from kit19_ray.sources.readers import read

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
SPANNING = {"apeach", "hatescore", "kobest_hellaswag", "question_pair", "math_korean", "kowiki_text"}

PIECES = [
    b"\t", b",", b'"', b"\n", b"\r", b"\xff", b"\xed\xa0\x80", b"\x00", "가".encode(), b"0", b"1", b"2.5", b"nan",
    b"True", b"<doc ", b'<doc id="1" url="" title="\xea\xb0\x80">\n', b"</doc>\n", b" = A = \n", b'{"title": "', b'"}',
    b"\\ud800", "원인".encode(), b"NS", b"\xef\xbb\xbf",
]  # fmt: skip
garbage = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=60).map(b"".join)


def blobs_read(name: str, data: bytes, companion: bytes) -> list[Raw | Reject]:
    blobs = {"mem://main": data, "mem://companion": companion}
    beside = (LocatedFile("mem://companion", "companion", "train"),) if name == "stylekqc" else ()
    file = LocatedFile("mem://main", "main", "train", companions=beside)
    return list(read(load_catalog()[name], file, lambda uri: io.BytesIO(blobs[uri])))


@pytest.mark.parametrize("name", load_catalog())
@settings(max_examples=60, deadline=None)
@given(data=garbage, other=garbage)
def test_rows_in_are_records_plus_rejects(name: str, data: bytes, other: bytes) -> None:
    header = HEADERS[name].encode() + b"\n" if HEADERS[name] else b""
    found = blobs_read(name, header + data, b"topic\tsentence\n" + other)
    lines = sum(1 for _ in physical_lines(io.BytesIO(header + data)))
    rows = lines - bool(header)
    if name == "stylekqc":
        assert len(found) == max(rows, sum(1 for _ in physical_lines(io.BytesIO(b"topic\tsentence\n" + other))) - 1)
    elif name in SPANNING:
        assert len(found) <= rows
    else:
        assert [r.line for r in found] == list(range(1 + bool(header), lines + 1))
    if name != "stylekqc":  # the companion's surplus rows have no line in the file
        assert all(1 <= r.line <= lines for r in found)
        assert [r.line for r in found] == sorted({r.line for r in found})


@pytest.mark.parametrize("name", load_catalog())
@settings(max_examples=30, deadline=None)
@given(data=garbage)
def test_bytes_without_the_header_are_a_source_error_at_worst(name: str, data: bytes) -> None:
    message = ""
    try:
        blobs_read(name, data, data)
    except SourceError as error:
        message = str(error)
    assert not message or re.match("(main|companion), line 1: ", message)
