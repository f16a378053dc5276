"""Messages, tables, records and progress, and where each goes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kit19_ray.utils import console

PACKAGE = Path(console.__file__).parents[1]


def test_only_this_module_makes_a_console_or_a_bar() -> None:
    made = re.compile(r"\b(Console|Progress)\(")
    found = [str(path) for path in PACKAGE.rglob("*.py") if made.search(path.read_text(encoding="utf-8"))]
    assert found == [console.__file__]


def test_tables_and_records_go_to_stdout_messages_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a message")
    console.table([{"name": "[b]x", "n": 1}, {"name": "y" * 300, "n": None}], right=("n",))
    console.record({"id": "a", "state": "b"}, as_json=False)
    console.pairs([("data", "1"), ("evaluate", "2")])
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"name{' ' * 296}  n", f"[b]x{' ' * 296}  1", "y" * 300, "id         a", "state      b"]
    assert err == "a message\ndata      1\nevaluate  2\n"


def test_what_a_machine_reads_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"이름": "가", "n": 1}]
    console.table(rows, as_json=True)
    assert json.loads(capsys.readouterr().out) == rows
    console.record(rows[0], as_json=True)
    assert json.loads(capsys.readouterr().out) == rows[0]
    console.show(rows, True, lambda _: pytest.fail("printed for a reader"))
    assert json.loads(capsys.readouterr().out) == rows


def test_an_empty_table_is_an_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.table([])
    assert capsys.readouterr().out.strip() == ""


def test_progress_says_a_line_now_and_then_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("evaluate: requests", 1000) as advance:
        for _ in range(4):
            now[0] += 20
            advance(100)
        advance()
    assert capsys.readouterr().err == "evaluate: requests: 200 of 1,000\nevaluate: requests: 400 of 1,000\n"
