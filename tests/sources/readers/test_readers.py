"""Each reader on a few lines: labels, rejects and where they are reported."""

from collections.abc import Callable

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from kit19_ray.sources.readers.nsmc import unnest
from tests.sources.stranger import source

Reads = Callable[..., list[SourceRow | RejectedRow]]


def told(records: list[SourceRow | RejectedRow]) -> list[tuple[int, str]]:
    """(line, label or reason) of each."""
    return [(r.line, r.reason if isinstance(r, RejectedRow) else r.fields["label"]) for r in records]


def test_delimited_renames_maps_and_groups(read_text: Reads) -> None:
    mine = source(
        "delimited",
        rename={"문장": "text", "긍부정": "label"},
        keep=["text", "label"],
        labels={"label": {"+": "positive", "-": "negative"}},
        drop_empty=["text"],
        placeholders=["NS"],
        group="text",
    )
    found = read_text(mine, "문장\t긍부정\t메모\n좋다 \t+\tx\nNS\t+\tx\n\t-\tx\n싫다\t?\tx\n싫다\t-\n")
    assert found[0] == SourceRow(2, {"text": "좋다", "label": "positive"}, "좋다")
    assert told(found[1:]) == [(3, "placeholder"), (4, "empty_field"), (5, "unknown_label"), (6, "too_few_columns")]


def test_delimited_keeps_every_column_unless_told(read_text: Reads) -> None:
    (record,) = read_text(source("delimited", header=["a", "b"], delimiter=";"), "1;2\n")
    assert record == SourceRow(1, {"a": "1", "b": "2"})


def test_jsonl(read_text: Reads) -> None:
    mine = source("jsonl", rename={"q": "question", "a": "label"}, keep=["question", "label"], drop_empty=["question"])
    lines = [
        '{"q": " 몇 개? ", "a": 3, "더": [1]}',
        '{"q": "몇 개?"}',
        "[1]",
        "{",
        "",
        '{"q": ["몇"], "a": 1}',
        '{"q": "\\ud800", "a": 1}',
        '{"q": null, "a": true}',
        '{"q": "참?", "a": true}',
    ]
    found = read_text(mine, "\n".join(lines) + "\n")
    assert found[0] == SourceRow(1, {"question": "몇 개?", "label": "3"})
    assert told(found[1:]) == [
        (2, "missing_key"),
        (3, "not_an_object"),
        (4, "invalid_json"),
        (5, "empty_line"),
        (6, "not_text"),
        (7, "invalid_utf8"),
        (8, "empty_field"),
        (9, "true"),
    ]


@pytest.mark.parametrize(
    ("nested", "plain"),
    [
        ('"""가나다"""', "가나다"),
        ('"""그는 """"와"""" 했다"""', '그는 "와" 했다'),
        ('"한 겹"', '"한 겹"'),
        ('"""', '"""'),
        ("그냥", "그냥"),
    ],
)
def test_nsmc_unnests_two_layers(nested: str, plain: str) -> None:
    assert unnest(nested) == plain


def test_nsmc(read_text: Reads) -> None:
    found = read_text("nsmc", 'id\tdocument\tlabel\n1\t"""와 """"굿"""" """\t1\n2\t\t0\n3\t별로\t2\n4\t별로\t0')
    assert found[0] == SourceRow(2, {"text": '와 "굿"', "label": "positive"}, '와 "굿"')
    assert told(found[1:]) == [(3, "empty_field"), (4, "unknown_label"), (5, "negative")]


def test_a_truncated_tsv_loses_its_last_row_only(read_text: Reads) -> None:
    whole = "id\tdocument\tlabel\n1\t좋다\t1\n2\t싫다\t0\n"
    assert told(read_text("nsmc", whole.encode()[:-3])) == [(2, "positive"), (3, "too_few_columns")]
    assert told(read_text("nsmc", whole.encode()[:-5])) == [(2, "positive"), (3, "invalid_utf8")]  # inside a syllable


UNSMILE = "문장\t여성/가족\t남성\t성소수자\t인종/국적\t연령\t지역\t종교\t기타 혐오\t악플/욕설\tclean\t개인지칭\n"


def test_unsmile(read_text: Reads) -> None:
    flags = ["0000110000 0", "0000000010 1", "0000000001 0", "0000000000 1", "1000000001 0", "2000000000 0"]
    data = UNSMILE + "\n".join("\t".join(["글", *f.replace(" ", "")]) for f in flags)
    found = read_text("unsmile", data)
    assert found[0] == SourceRow(2, {"text": "글", "label": "hate", "targets": "연령, 지역"}, "글")
    assert told(found[1:]) == [
        (3, "abuse"),
        (4, "clean"),
        (5, "no_label"),
        (6, "contradictory_label"),
        (7, "unknown_label"),
    ]


def test_unsmile_with_the_readmes_spelling_of_a_column_is_refused(read_text: Reads) -> None:
    with pytest.raises(SourceError, match="line 1: column '기타 혐오' is missing.*did you mean '기타혐오'"):
        read_text("unsmile", UNSMILE.replace("기타 혐오", "기타혐오"))


def test_hatescore_none_is_no_target(read_text: Reads) -> None:
    rows = [
        "0,글,Clean,None,x",
        '1,글,혐오발언,"단순 악플, 지역",x',
        "2,글,단순 악플,단순 악플,x",
        "3,글,혐오발언,달,x",
    ]
    found = read_text("hatescore", ",comment,macrolabel,microlabel,source\n" + "\n".join(rows))
    targets = [r.fields["targets"] for r in found if isinstance(r, SourceRow)]
    assert told(found) == [(2, "clean"), (3, "hate"), (4, "abuse"), (5, "unknown_label")]
    assert targets == ["", "지역", ""]


@pytest.mark.parametrize(
    ("score", "decimal", "label"),
    [("0", "0.0", "0"), ("5.000", "5.0", "5"), ("2.6", "2.6", "3"), ("2.5", "2.5", "3"), ("1.49999999", "1.5", "1"),
     ("-0", "0.0", "0"), ("0.05", "0.1", "0")],
)  # fmt: skip
def test_korsts_scores(read_text: Reads, score: str, decimal: str, label: str) -> None:
    data = f"genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\ng\tf\t2026\t1\t{score}\t가\t나"
    (record,) = read_text("korsts", data)
    assert isinstance(record, SourceRow)
    assert (record.fields["score"], record.fields["label"]) == (decimal, label)


@pytest.mark.parametrize(
    ("score", "reason"), [("NaN", "out_of_range"), ("6", "out_of_range"), ("-1", "out_of_range"), ("x", "not_a_number")]
)
def test_korsts_bad_scores(read_text: Reads, score: str, reason: str) -> None:
    data = f"genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\ng\tf\t2026\t1\t{score}\t가\t나"
    assert told(read_text("korsts", data)) == [(2, reason)]


def test_sentineg_is_read_by_column_name(read_text: Reads) -> None:
    orders = ["ID\tText\tLabel\n1\t좋다\t1", "ID\tLabel\tText\n1\t1\t좋다"]
    orders.append("ID\tLabel_origin\tText_origin\tLabel\tText\tCategory_neg\n1\t0\t싫다\t1\t좋다\t1")
    for data in orders:
        assert read_text("kobest_sentineg", data)[0].fields == {"sentence": "좋다", "label": "positive"}


def test_sae4k_v2_has_another_order(read_text: Reads) -> None:
    v1 = read_text("sae4k", "\ufeff언제 오니\t오는 때\t2\r\n", path="sae4k_v1.txt")
    v2 = read_text("sae4k", "2\t언제 오니\t오는 때\n", path="sae4k_v2.txt")
    assert [r.fields for r in v1] == [r.fields for r in v2]
    assert v1[0].fields == {"sentence": "언제 오니", "argument": "오는 때", "label": "wh"}
