"""Whole JSON documents: lists of objects and SQuAD's nesting, and what each says of a file that is neither."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from typing import Any

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import Source
from kit19_ray.sources.readers import json_array
from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from tests.sources.stranger import source

Reads = Callable[..., list[SourceRow | RejectedRow]]


ARRAY = source("json", rename={"문장": "text"}, keep=["text", "label"], labels={"label": {"1": "yes"}}, group="text")
SQUAD = source("squad")
READERS = pytest.mark.parametrize("reader", [ARRAY, SQUAD], ids=["json", "squad"])


def told(records: list[SourceRow | RejectedRow]) -> list[tuple[int, str]]:
    """(number, text or reason) of each."""
    return [(r.line, r.reason if isinstance(r, RejectedRow) else next(iter(r.fields.values()))) for r in records]


def test_a_list_of_objects(read_text: Reads) -> None:
    rows = [{"문장": " 비가\u00a0온다 ", "label": 1, "더": [1]}, {"문장": "눈이 온다", "label": "1"}]
    assert read_text(ARRAY, json.dumps(rows)) == [
        SourceRow(1, {"text": "비가 온다", "label": "yes"}, "비가 온다"),
        SourceRow(2, {"text": "눈이 온다", "label": "yes"}, "눈이 온다"),
    ]
    assert read_text(ARRAY, "[]") == []


def test_each_fault_of_one_object_costs_that_object(read_text: Reads) -> None:
    rows = [
        {"문장": "가"},
        "가",
        {"문장": ["가"], "label": 1},
        {"문장": "\ud800", "label": 1},
        {"문장": "가", "label": 2},
    ]
    found = read_text(ARRAY, json.dumps([*rows, {"문장": "가", "label": 1}]))
    assert told(found) == [
        (1, "missing_key"),
        (2, "not_an_object"),
        (3, "not_text"),
        (4, "invalid_utf8"),
        (5, "unknown_label"),
        (6, "가"),
    ]
    assert isinstance(found[0], RejectedRow)
    assert found[0].row == '{"문장": "가"}'


def squad(
    *questions: dict[str, Any], title: object = "수달", context: object = "수달은 물가에 산다."
) -> dict[str, Any]:
    return {"version": "1.0", "data": [{"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def asked(question: object, *answers: object) -> dict[str, Any]:
    return {"id": "1", "question": question, "answers": [{"text": a, "answer_start": 0} for a in answers]}


def test_questions_of_squad_are_numbered_through_the_file(read_text: Reads) -> None:
    document = squad(asked("어디에 사는가?", "물가", "강가"), asked("무엇을 먹는가?"))
    document["data"] += squad(asked("언제 피는가?", " 봄 "), title="벚꽃", context="벚꽃은 봄에 핀다.")["data"]
    assert read_text(SQUAD, json.dumps(document)) == [
        SourceRow(
            1, {"title": "수달", "context": "수달은 물가에 산다.", "question": "어디에 사는가?", "answer": "물가"}
        ),
        SourceRow(2, {"title": "수달", "context": "수달은 물가에 산다.", "question": "무엇을 먹는가?", "answer": ""}),
        SourceRow(3, {"title": "벚꽃", "context": "벚꽃은 봄에 핀다.", "question": "언제 피는가?", "answer": "봄"}),
    ]
    assert read_text(SQUAD, '{"data": []}') == []


def test_a_question_that_is_no_text_costs_that_question(read_text: Reads) -> None:
    document = squad(
        asked(7, "물가"), asked("어디?", None), asked("어\udc00디?", "물가"), asked("어디에 사는가?", "물가")
    )
    assert told(read_text(SQUAD, json.dumps(document))) == [
        (1, "not_text"),
        (2, "not_text"),
        (3, "invalid_utf8"),
        (4, "수달"),
    ]


@READERS
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "file, line 1: not JSON: Expecting value"),
        (b'[\n{"text": ]', "file, line 2: not JSON: Expecting value"),
        (b"[] []", "file, line 1: not JSON: Extra data"),
        (b'["\xff"]', "file: byte 2 is not UTF-8"),
        (b"[" * 100_000, "file: not JSON that can be read: maximum recursion depth exceeded"),
        (b"[" + b"9" * 5000 + b"]", "file: not JSON that can be read: Exceeds the limit"),
    ],
    ids=["empty", "broken", "two", "bytes", "deep", "digits"],
)
def test_a_file_that_is_no_json(read_text: Reads, reader: Source, data: bytes, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_text(reader, data)
    assert str(caught.value).startswith(said)


def test_a_byte_order_mark_is_no_part_of_the_document(read_text: Reads) -> None:
    assert told(read_text(ARRAY, codecs.BOM_UTF8 + '[{"문장": "가", "label": 1}]'.encode())) == [(1, "가")]
    assert told(read_text(SQUAD, codecs.BOM_UTF8 + json.dumps(squad(asked("어디?", "물가"))).encode())) == [(1, "수달")]


@pytest.mark.parametrize(("document", "kind"), [({"data": []}, "dict"), ("가", "str"), (None, "NoneType"), (3, "int")])
def test_a_document_that_is_no_list(read_text: Reads, document: object, kind: str) -> None:
    with pytest.raises(SourceError, match=f"^file: a list of objects is expected, this is a {kind}$"):
        read_text(ARRAY, json.dumps(document))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "question 1 does not nest as SQuAD 1.1 does: TypeError"),
        ({}, "question 1 does not nest as SQuAD 1.1 does: KeyError('data')"),
        ({"data": 3}, "question 1 does not nest as SQuAD 1.1 does: TypeError"),
        ({"data": [{"title": "가"}]}, "question 1 does not nest as SQuAD 1.1 does: KeyError('paragraphs')"),
        (
            squad(asked("가?", "나"), {"answers": []}),
            "question 2 does not nest as SQuAD 1.1 does: KeyError('question')",
        ),
        (squad({"question": "가?"}), "question 1 does not nest as SQuAD 1.1 does: KeyError('answers')"),
        (squad({"question": "가?", "answers": ["나"]}), "question 1 does not nest as SQuAD 1.1 does: TypeError"),
        (squad({"question": "가?", "answers": [{}]}), "question 1 does not nest as SQuAD 1.1 does: KeyError('text')"),
    ],
)
def test_other_nesting_is_named_by_its_question(read_text: Reads, document: object, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_text(SQUAD, json.dumps(document))
    assert str(caught.value).startswith(f"file: {said}")


@READERS
def test_a_long_document_is_read_an_item_at_a_time(
    read_text: Reads, reader: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"문장": f"글 {n}", "label": 1, "n": 2**80, "f": 0.1, "deep": [[{}]]} for n in range(50)]
    rows += [{"문장": "\ud800", "label": 1}, {"문장": "가", "label": 2}]
    questions = [*(asked(f"무엇 {n}?", f"답 {n}") for n in range(50)), asked(7, "물가"), asked("어\udc00디?", "물가")]
    content = codecs.BOM_UTF8 + json.dumps(rows if reader is ARRAY else squad(*questions)).encode()
    at_once = read_text(reader, content)
    assert len(at_once) == 52
    for limit in (5, 100, len(content) - 1):
        monkeypatch.setattr(json_array, "MAX_BYTES", limit)
        assert read_text(reader, content) == at_once


def test_faults_of_a_long_document(read_text: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "MAX_BYTES", 3)
    for data in (b'[{"text": ]', b'[{"text": "x"}', b'["\xff"]', b"[1] [2]", b"[" * 100_000):
        with pytest.raises(SourceError, match="^file: not JSON that can be read: .{1,210}$"):
            read_text(ARRAY, data)
    with pytest.raises(SourceError, match=r"^file: a list of objects is expected, and this does not begin with \[$"):
        read_text(ARRAY, b'\n {"data": 1}')
    with pytest.raises(SourceError, match="question 1 does not nest as SQuAD 1.1 does"):
        read_text(SQUAD, b'{"data": [{"title": 1}]}')
