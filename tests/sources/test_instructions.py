"""Alpaca, ShareGPT, messages and text, in every kind of file: rows in are records and rejects."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers.base import LocatedFile, RejectedRow, SourceRow
from kit19_ray.sources.readers.instructions import InstructionOptions, read_instructions, turns

ALPACA = [
    {"instruction": "수도를 말하세요.", "input": "대한민국", "output": "서울"},
    {"instruction": "인사하세요.", "output": "안녕하세요"},
    {"instruction": "", "input": "", "output": "빈 지시"},
]
TALK = [
    {"role": "system", "content": "짧게 답하세요."},
    {"role": "user", "content": "하나 더하기 하나는?"},
    {"role": "assistant", "content": "둘"},
    {"role": "user", "content": "둘 더하기 둘은?"},
    {"role": "assistant", "content": "넷"},
]
SHARE = [{"from": {"user": "human", "assistant": "gpt"}.get(t["role"], t["role"]), "value": t["content"]} for t in TALK]


def read(data: bytes, name: str, format_: str, **columns: str) -> list[SourceRow | RejectedRow]:
    options = InstructionOptions.model_validate({"format": format_, "columns": columns})
    stream = pa.BufferReader(data) if name.endswith(".parquet") else io.BytesIO(data)
    return list(read_instructions(options, LocatedFile(f"file:///x/{name}", name, "train", len(data)), stream))


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["instruction", "input", "output"])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


FILES = {
    "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in ALPACA).encode(),
    "a.json": json.dumps(ALPACA).encode(),
    "a.csv": as_csv(ALPACA),
    "a.parquet": as_parquet(ALPACA),
}


@pytest.mark.parametrize("name", FILES)
def test_alpaca_in_every_kind_of_file(name: str) -> None:
    one, other, bad = read(FILES[name], name, "alpaca")
    assert isinstance(one, SourceRow) and one.fields == {
        "instruction": "수도를 말하세요.",
        "input": "대한민국",
        "output": "서울",
    }
    assert isinstance(other, SourceRow) and other.fields["input"] == ""
    assert isinstance(bad, RejectedRow) and bad.reason == "empty_instruction"


def test_both_namings_of_a_conversation_are_one() -> None:
    (one,) = read(json.dumps({"messages": TALK}).encode(), "m.jsonl", "messages")
    (other,) = read(json.dumps({"conversations": SHARE}).encode(), "s.jsonl", "sharegpt")
    assert isinstance(one, SourceRow) and isinstance(other, SourceRow) and one.fields == other.fields
    assert json.loads(one.fields["messages"]) == TALK


def test_turns_nobody_answers_are_left_out_and_disorder_is_no_conversation() -> None:
    assert turns([*TALK, {"role": "user", "content": "그럼?"}]) == TALK
    for bad in (
        None,
        "글",
        [],
        [3],
        TALK[:1],
        TALK[2:],
        [TALK[1], TALK[1], TALK[2]],
        [{"role": "user", "content": None}],
    ):
        assert turns(bad) is None


def test_text_is_a_line_or_a_field() -> None:
    assert [r.fields for r in read("첫 줄\n둘째".encode(), "t.txt", "text") if isinstance(r, SourceRow)] == [
        {"text": "첫 줄"}, {"text": "둘째"}
    ]  # fmt: skip
    (row,) = read(b'{"content": "x"}', "t.jsonl", "text")
    assert isinstance(row, SourceRow) and row.fields == {"text": "x"}


def test_what_cannot_be_read_is_one_message() -> None:
    with pytest.raises(SourceError, match="its name ends in none of"):
        read(b"x", "a.xlsx", "alpaca")
    with pytest.raises(SourceError, match=r"no column 'instruction' or .* for 'instruction'.*'outptu'"):
        read(b'{"outptu": "x"}', "a.jsonl", "alpaca")
    with pytest.raises(SourceError, match="no column 'ask'"):
        read(FILES["a.jsonl"], "a.jsonl", "alpaca", instruction="ask")
    with pytest.raises(SourceError, match="'instructoin' is no field of format alpaca.*did you mean 'instruction'"):
        read(FILES["a.jsonl"], "a.jsonl", "alpaca", instructoin="x")
    with pytest.raises(SourceError, match="not a JSON array"):
        read(b'[{"instruction": ', "a.json", "alpaca")
    with pytest.raises(SourceError, match="not a Parquet file"):
        read(b"x" * 64, "a.parquet", "alpaca")
    with pytest.raises(SourceError, match="its header row is missing"):
        read(b"", "a.csv", "alpaca")
    with pytest.raises(SourceError, match="not CSV"):
        read(b'instruction,output\n"' + b"x" * (17 << 20), "a.csv", "alpaca")


value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), inner, max_size=3)
    ),
    max_leaves=6,
)
row = st.dictionaries(
    st.sampled_from(["instruction", "output", "messages", "conversations", "text"]), value, max_size=4
)


@given(st.sampled_from(["alpaca", "sharegpt", "messages", "text"]), st.lists(row, max_size=8))
def test_any_json_rows_in_are_rows_out(format_: str, rows: list[dict[str, Any]]) -> None:
    whole = {"instruction": "i", "output": "o", "messages": TALK, "conversations": SHARE, "text": "t"}
    data = b"\n".join(json.dumps(r).encode() for r in [whole, *rows])
    found = read(data, "a.jsonl", format_)
    assert len(found) == 1 + len(rows) and isinstance(found[0], SourceRow)
    for made in found:
        assert isinstance(made, SourceRow | RejectedRow)
        if isinstance(made, SourceRow):
            assert all(made.fields[name] for name in made.fields if name != "input")


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_sound_row_are_rows_or_rejects(data: bytes) -> None:
    found = read(FILES["a.jsonl"] + b"\n" + data, "a.jsonl", "alpaca")
    assert len(found) >= 3
