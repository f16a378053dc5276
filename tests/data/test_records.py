from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data import records
from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from kit19_ray.tasks.task import load_tasks

TASK = load_tasks(["nsmc"])["nsmc"]
row = st.one_of(
    st.builds(lambda t, label: SourceRow(1, {"text": t, "label": label}), st.text("가나 ", max_size=4),
              st.sampled_from(["positive", "negative", "odd"])),
    st.builds(lambda t: RejectedRow(1, "too_few_columns", t), st.text("가나", max_size=4)),
)  # fmt: skip


@given(st.lists(row, max_size=30))
def test_rows_in_are_rows_out(rows: list[SourceRow | RejectedRow]) -> None:
    found = [r for table in records.tables(TASK, 3, "f.tsv", rows) for r in table.to_pylist()]
    assert len(found) == len(rows) and [r["nth"] for r in found] == list(range(len(rows)))
    for given_, made in zip(rows, found, strict=True):
        assert (made["dropped"] is None) == (made["id"] is not None)
        if isinstance(given_, RejectedRow):
            assert made["dropped"] == "too_few_columns" and json.loads(made["fields"]) == given_.row
        elif made["dropped"] is None:
            assert json.loads(made["fields"]) == given_.fields
        else:
            assert made["dropped"] in {"empty_text", "unknown_label"}


def test_a_table_is_bounded_by_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BATCH_BYTES", 3000)
    long = [SourceRow(i, {"text": "글" * 500, "label": "positive"}) for i in range(7)]
    tables = list(records.tables(TASK, 0, "f.tsv", long))
    assert [len(t) for t in tables] == [2, 2, 2, 1] and [t["table"][0].as_py() for t in tables] == [0, 1, 2, 3]
