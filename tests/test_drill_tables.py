"""The tables of drills in the docs: a row goes into its own section, and where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import drill_tables

PAGE = """# Drills

## A run

Text.

| drill | what is done | outcome | seconds |
| --- | --- | --- | ---: |
| cut | half | ends | 1 |
| lost | all | ends | 2 |

## A build

| drill | what is done | outcome | seconds |
| --- | --- | --- | ---: |
| cut | half | ends | 3 |
"""


def test_a_row_takes_its_place_in_its_own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "drills.md"
    page.write_text(PAGE, encoding="utf-8")
    drill_tables.record("A run", "cut", "half", "ends", 4)
    assert page.read_text(encoding="utf-8") == PAGE
    monkeypatch.setenv("KIT19_DRILLS", str(page))
    drill_tables.record("A run", "cut", "half", "fails", 4.4)
    drill_tables.record("A run", "full", "disk", "ends", 5)
    expected = PAGE.replace("| cut | half | ends | 1 |", "| cut | half | fails | 4 |")
    expected = expected.replace(
        "| lost | all | ends | 2 |\n", "| lost | all | ends | 2 |\n| full | disk | ends | 5 |\n"
    )
    assert page.read_text(encoding="utf-8") == expected


def test_a_page_or_a_section_that_is_not_there_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "drills.md"
    monkeypatch.setenv("KIT19_DRILLS", str(page))
    drill_tables.record("A run", "cut", "half", "ends", 1)
    drill_tables.record("A build", "cut", "half", "ends", 2)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Drills\n\n## A run\n\n| drill |") and text.endswith("| cut | half | ends | 2 |\n")
    assert text.index("| cut | half | ends | 1 |") < text.index("## A build")
