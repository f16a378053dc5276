import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers import table
from kit19_ray.sources.readers.base import RejectedRow
from kit19_ray.sources.readers.table import Dialect, Table, TableRow, read_rows

TSV = Dialect()
CSV = Dialect(",", "csv")


def rows(data: str | bytes, dialect: Dialect) -> list[tuple[int, object]]:
    stream = io.BytesIO(data.encode() if isinstance(data, str) else data)
    return [(r.line, r.cells if isinstance(r, TableRow) else r.reason) for r in read_rows(stream, dialect)]


def test_without_quoting_a_quote_is_a_letter() -> None:
    assert rows('"a\tb"\n"c\td\n', TSV) == [(1, ['"a', 'b"']), (2, ['"c', "d"])]


def test_csv_records_span_lines_and_keep_their_first_line_number() -> None:
    data = 'a,"x\ny, ""z"""\r\nb,c\r\n"\n\n",d'
    assert rows(data, CSV) == [(1, ["a", 'x\ny, "z"']), (3, ["b", "c"]), (4, ["\n\n", "d"])]


@given(st.lists(st.lists(st.text(alphabet='ab,"\n 가', max_size=5), min_size=2, max_size=3), min_size=1, max_size=6))
def test_csv_reads_what_the_standard_library_writes(cells: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(cells)
    assert [row for _, row in rows(out.getvalue(), CSV)] == cells


def test_a_quote_never_closed_costs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows('a,b\nc,"d\ne,f\n', CSV) == [(1, ["a", "b"]), (2, "unclosed_quote"), (3, ["e", "f"])]
    monkeypatch.setattr(table, "MAX_RECORD_LINES", 2)
    found = rows('c,"d\n' + "e,f\n" * 5, CSV)
    assert found[0] == (1, "unclosed_quote")
    assert found[1:] == [(n, ["e", "f"]) for n in range(2, 7)]


def test_text_after_a_closing_quote_is_malformed() -> None:
    assert rows('"a"b,c\nd,e\n', CSV) == [(1, "malformed_csv"), (2, ["d", "e"])]


@pytest.mark.parametrize("dialect", [TSV, CSV])
def test_invalid_utf8_is_one_reject(dialect: Dialect) -> None:
    d = dialect.delimiter.encode()
    assert rows(b"a" + d + b"b\n\xff\xfe" + d + b"c\nd" + d + b"e\n", dialect) == [
        (1, ["a", "b"]),
        (2, "invalid_utf8"),
        (3, ["d", "e"]),
    ]


def test_the_width_of_every_row_is_checked() -> None:
    opened = Table(io.BytesIO(b"a\tb\n1\t2\n1\n1\t2\t3\n\n"), "f.tsv", TSV)
    found = [r.reason if isinstance(r, RejectedRow) else r.cells for r in opened]
    assert found == [["1", "2"], "too_few_columns", "too_many_columns", "too_few_columns"]


def test_a_missing_column_names_file_line_and_neighbour() -> None:
    opened = Table(io.BytesIO(b"id\tdocumnet\tlabel\n"), "ratings.txt", TSV)
    with pytest.raises(SourceError, match=r"ratings\.txt, line 1: column 'document' is missing.*'documnet'"):
        opened.index("document")


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "empty"), (b"\xff\n", "invalid_utf8"), (b"a\ta\n", "'a' stands twice")],
)
def test_an_unusable_header(data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=f"f.tsv, line 1: .*{said}"):
        Table(io.BytesIO(data), "f.tsv", TSV)
