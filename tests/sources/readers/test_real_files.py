"""The real files, each against what their README counts, and the odd rows it names. No sentence of theirs is here."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import Source, load_catalog
from kit19_ray.sources.files import locate, verify_sha256
from kit19_ray.sources.readers.base import LocatedFile, RejectedRow, SourceRow

pytestmark = pytest.mark.real_data

ReadsReal = Callable[[str, str], list[SourceRow | RejectedRow]]

EXPECTED: dict[tuple[str, str], tuple[dict[str, int], dict[str, int]]] = {
    ("apeach", "test.csv"): ({"hate": 1922, "none": 1848}, {}),
    ("unsmile", "unsmile_train_v1.0.tsv"): ({"hate": 8121, "abuse": 3143, "clean": 3739}, {"no_label": 2}),
    ("unsmile", "unsmile_valid_v1.0.tsv"): ({"hate": 2016, "abuse": 786, "clean": 935}, {}),
    ("hatescore", "HateScore.csv"): ({"clean": 10174, "hate": 782, "abuse": 152}, {}),
    ("kobest_boolq", "train.tsv"): ({"true": 1831, "false": 1834}, {}),
    ("kobest_boolq", "dev.tsv"): ({"true": 326, "false": 374}, {}),
    ("kobest_boolq", "test.tsv"): ({"true": 705, "false": 699}, {}),
    ("kobest_copa", "train.tsv"): ({"1": 1671, "2": 1405}, {}),
    ("kobest_copa", "dev.tsv"): ({"1": 248, "2": 252}, {}),
    ("kobest_copa", "test.tsv"): ({"1": 517, "2": 483}, {}),
    ("kobest_hellaswag", "train.tsv"): ({"1": 533, "2": 511, "3": 487, "4": 498}, {}),
    ("kobest_hellaswag", "dev.tsv"): ({"1": 111, "2": 125, "3": 145, "4": 119}, {}),
    ("kobest_hellaswag", "test.tsv"): ({"1": 124, "2": 137, "3": 121, "4": 118}, {}),
    ("kobest_wic", "train.tsv"): ({"true": 1680, "false": 1638}, {}),
    ("kobest_wic", "dev.tsv"): ({"true": 261, "false": 349}, {}),
    ("kobest_wic", "test.tsv"): ({"true": 615, "false": 645}, {}),
    ("kobest_sentineg", "train.tsv"): ({"positive": 1838, "negative": 1811}, {}),
    ("kobest_sentineg", "dev.tsv"): ({"positive": 200, "negative": 200}, {}),
    ("kobest_sentineg", "test.tsv"): ({"positive": 200, "negative": 197}, {}),
    ("kornli", "xnli.dev.ko.tsv"): ({"entailment": 830, "neutral": 830, "contradiction": 830}, {}),
    ("kornli", "xnli.test.ko.tsv"): ({"entailment": 1670, "neutral": 1670, "contradiction": 1670}, {}),
    ("korsts", "sts-train.tsv"): ({"0": 592, "1": 833, "2": 902, "3": 1359, "4": 1435, "5": 628}, {}),
    ("korsts", "sts-dev.tsv"): ({"0": 236, "1": 241, "2": 266, "3": 353, "4": 276, "5": 128}, {}),
    ("korsts", "sts-test.tsv"): ({"0": 178, "1": 196, "2": 233, "3": 293, "4": 317, "5": 162}, {}),
    ("kowiki_text", "wiki_00"): (
        {"": 126},
        {"disambiguation": 3, "empty_body": 13, "lost_formula": 10, "unfinished": 2},
    ),
    ("kowiki_text", "wiki_01"): (
        {"": 93},
        {"disambiguation": 3, "empty_body": 21, "lost_formula": 12, "unfinished": 1},
    ),
    ("pawsx_ko", "dev_2k.tsv"): ({"same": 840, "different": 1125}, {"placeholder": 35}),
    ("pawsx_ko", "test_2k.tsv"): ({"same": 896, "different": 1076}, {"placeholder": 28}),
    ("parakqc", "paraKQC_v1.txt"): ({"different": 4998, "same": 4997}, {"stray": 5}),
    ("stylekqc", "act/train.tsv"): ({"different": 12000, "same": 11999}, {"stray": 1}),
    ("stylekqc", "act/dev.tsv"): ({"same": 600, "different": 600}, {}),
    ("stylekqc", "act/test.tsv"): ({"same": 2400, "different": 2400}, {}),
    ("question_pair", "kor_pair_train.csv"): ({"same": 4750, "different": 2138}, {}),
    ("question_pair", "kor_Pair_test.csv"): ({"same": 359, "different": 329}, {}),
    ("nsmc", "ratings_test.txt"): ({"positive": 25171, "negative": 24826}, {"empty_field": 3}),
    ("sae4k", "sae4k_v1.txt"): (
        {"yes_no": 5718, "alternative": 227, "wh": 11924, "prohibition": 477, "requirement": 12369,
         "strong_requirement": 122},
        {},
    ),
    ("petitions", "petitions_2017-08"): ({"": 662}, {}),
    ("petitions", "petitions_2019-04"): ({"": 412}, {"empty_field": 10, "masked_title": 72}),
    ("petitions", "petitions_2019-05"): ({"": 585}, {"empty_field": 4, "masked_title": 125}),
    ("petitions", "petitions_2019-06"): ({"": 461}, {"empty_field": 3, "masked_title": 108}),
    ("petitions", "petitions_2019-07"): ({"": 487}, {"empty_field": 5, "masked_title": 118}),
    ("petitions", "petitions_2019-08"): ({"": 509}, {"empty_field": 1, "masked_title": 129}),
    ("math_korean", "train.csv"): ({"": 2810}, {"wrong_answer": 10}),
    ("lbox_summarization", "readme_example.jsonl"): ({"": 1}, {}),
}  # fmt: skip


def raws(records: list[SourceRow | RejectedRow]) -> list[SourceRow]:
    return [r for r in records if isinstance(r, SourceRow)]


def column(records: list[SourceRow | RejectedRow], name: str) -> list[str]:
    return [r.fields[name] for r in raws(records)]


def test_every_file_at_hand_is_expected(shared_sources: Path) -> None:
    at_hand = {
        (n, f.path) for n, s in load_catalog().items() for f in s.files if (shared_sources / n / f.path).is_file()
    }
    assert at_hand == set(EXPECTED)


@pytest.mark.parametrize(("source_id", "path"), EXPECTED)
def test_rows_labels_and_rejects(read_real: ReadsReal, source_id: str, path: str) -> None:
    found = read_real(source_id, path)
    labels, rejects = EXPECTED[source_id, path]
    assert Counter(r.fields.get("label", "") for r in raws(found)) == labels
    assert Counter(r.reason for r in found if isinstance(r, RejectedRow)) == rejects
    (rows,) = [f.rows for f in load_catalog()[source_id].files if f.path == path]
    assert len(found) == rows
    assert len({r.line for r in found}) == len(found)


@pytest.mark.parametrize(("source_id", "path"), EXPECTED)
def test_text_is_in_normal_form(read_real: ReadsReal, source_id: str, path: str) -> None:
    everything = "".join(v for r in raws(read_real(source_id, path)) for v in r.fields.values())
    assert unicodedata.is_normalized("NFC", everything)
    assert not re.search("[\u00a0\u200b\ufeff\x00-\x08\x0b-\x1f\x7f-\x9f]", everything)


def test_every_known_hash_fits(shared_sources: Path) -> None:
    for (source_id, path), _ in EXPECTED.items():
        source = load_catalog()[source_id]
        split = next(f.split for f in source.files if f.path == path)
        (file,) = [f for f in locate(source_id, source, str(shared_sources), [split]) if f.path == path]
        for one in (file, *file.companions):
            assert verify_sha256(one) == one.sha256_expected


@pytest.mark.parametrize(
    ("source_id", "path", "delimiter", "fields"),
    [
        ("apeach", "test.csv", ",", {"text": "text"}),
        ("hatescore", "HateScore.csv", ",", {"comment": "text"}),
        ("question_pair", "kor_pair_train.csv", ",", {"question1": "question1", "question2": "question2"}),
        ("question_pair", "kor_Pair_test.csv", ",", {"question1": "question1", "question2": "question2"}),
        ("kobest_hellaswag", "train.tsv", "\t", {"context": "context", "choice4": "ending_4"}),
        ("math_korean", "train.csv", ",", {"problem": "problem", "code": "code", "answer": "answer"}),
    ],
)
def test_quoted_files_equal_the_standard_library(
    read_real: ReadsReal, shared_sources: Path, source_id: str, path: str, delimiter: str, fields: dict[str, str]
) -> None:
    from kit19_ray.sources.readers.text import normalise

    with (shared_sources / source_id / path).open(encoding="utf-8-sig", newline="") as file:
        peer = list(csv.DictReader(file, delimiter=delimiter, strict=True))
    found = read_real(source_id, path)
    kept = [row for row, ours in zip(peer, found, strict=True) if isinstance(ours, SourceRow)]
    for theirs, ours in fields.items():
        assert column(found, ours) == [normalise(row[theirs]) for row in kept]


def test_apeach_newlines_and_physical_lines(read_real: ReadsReal, shared_sources: Path) -> None:
    found = read_real("apeach", "test.csv")
    with (shared_sources / "apeach/test.csv").open(encoding="utf-8-sig", newline="") as file:
        assert sum("\n" in row["text"] for row in csv.DictReader(file)) == 56
    assert sum("\n" in t for t in column(found, "text")) == 42  # the other 14 end with theirs
    assert found[-1].line + raws(found)[-1].fields["text"].count("\n") == 3845
    assert all(t == t.strip() for t in column(found, "text"))


def test_unsmile_literal_quotes_and_targets(read_real: ReadsReal, shared_sources: Path) -> None:
    raw = (shared_sources / "unsmile/unsmile_train_v1.0.tsv").read_bytes().split(b"\n")
    found = read_real("unsmile", "unsmile_train_v1.0.tsv")
    assert sum(b'"' in line for line in raw) == 72
    assert sum('"' in t for t in column(found, "text")) == 72
    assert all(bool(r.fields["targets"]) == (r.fields["label"] == "hate") for r in raws(found))
    counts = Counter(t for r in raws(found) for t in r.fields["targets"].split(", ") if t)
    assert counts["성소수자"] == 1141
    assert len(counts) == 8


def test_hatescore_clean_rows_have_no_target(read_real: ReadsReal) -> None:
    found = read_real("hatescore", "HateScore.csv")
    assert Counter(column(found, "origin")) == {"규칙 기반 생성": 7115, "위키피디아": 2221, "온라인 댓글": 1772}
    assert all(bool(r.fields["targets"]) == (r.fields["label"] == "hate") for r in raws(found))
    assert "None" not in ", ".join(column(found, "targets"))
    assert column(found, "targets").count("종교, 지역") >= 14


def test_boolq_quotes_and_stray_spaces(read_real: ReadsReal, shared_sources: Path) -> None:
    data = (shared_sources / "kobest_boolq/train.tsv").read_bytes()
    found = read_real("kobest_boolq", "train.tsv")
    kept = sum(r.fields[k].count('"') for r in raws(found) for k in ("paragraph", "question"))
    assert kept == data.decode().count('"')
    texts = column(found, "paragraph") + column(found, "question")
    assert all(t == t.strip() for t in texts)
    spellings = {
        line.rstrip(b"\r").rsplit(b"\t", 1)[-1]
        for line in (shared_sources / "kobest_boolq/test.tsv").read_bytes().split(b"\n")[1:]
    }
    assert spellings == {b"TRUE", b"True", b"FALSE", b"False"}


def test_copa_trailing_space(read_real: ReadsReal, shared_sources: Path) -> None:
    data = (shared_sources / "kobest_copa/train.tsv").read_text(encoding="utf-8")
    assert len(re.findall("(?:원인|결과) \t", data)) == 6
    assert set(column(read_real("kobest_copa", "train.tsv"), "question")) == {"원인", "결과"}


def test_hellaswag_quotes_and_duplicates(read_real: ReadsReal) -> None:
    found = read_real("kobest_hellaswag", "train.tsv")
    rows = [tuple(r.fields.values()) for r in raws(found)]
    assert len(rows) - len(set(rows)) == 137
    assert not any('""' in cell for row in rows for cell in row)
    assert any('"' in cell for row in rows for cell in row)
    assert len(set(column(found, "context")) & set(column(read_real("kobest_hellaswag", "dev.tsv"), "context"))) == 9


def test_wic_brackets(read_real: ReadsReal) -> None:
    for path, odd in (("train.tsv", 6), ("dev.tsv", 0), ("test.tsv", 0)):
        texts = column(read_real("kobest_wic", path), "context_1") + column(read_real("kobest_wic", path), "context_2")
        assert sum(t.count("[") != 1 for t in texts) <= odd


def test_sentineg_test_negates_train(read_real: ReadsReal, shared_sources: Path) -> None:
    train = set(column(read_real("kobest_sentineg", "train.tsv"), "sentence"))
    lines = (shared_sources / "kobest_sentineg/test.tsv").read_text(encoding="utf-8").split("\n")[1:]
    origins = [line.split("\t")[2] for line in lines if line]
    assert sum(o.strip() in train for o in origins) == 396
    negated = column(read_real("kobest_sentineg", "test.tsv"), "sentence")
    assert sum(n == o.strip() for n, o in zip(negated, origins, strict=True)) < 5


def test_kornli_premises_come_in_threes(read_real: ReadsReal) -> None:
    found = read_real("kornli", "xnli.dev.ko.tsv")
    assert max(len(t) for t in column(found, "sentence1")) < 1000  # a quoting parser makes one cell of 89,532
    groups = Counter(r.group for r in raws(found))
    assert set(groups.values()) <= {3, 6}


def test_korsts_scores(read_real: ReadsReal) -> None:
    for path in ("sts-train.tsv", "sts-dev.tsv", "sts-test.tsv"):
        found = read_real("korsts", path)
        assert all(re.fullmatch(r"[0-5]\.\d", s) for s in column(found, "score"))
    identical = [
        sum(r.fields["sentence1"] == r.fields["sentence2"] for r in raws(read_real("korsts", f"sts-{s}.tsv")))
        for s in ("train", "dev", "test")
    ]
    assert identical == [37, 5, 8]


def test_kowiki_articles(read_real: ReadsReal) -> None:
    found = read_real("kowiki_text", "wiki_00") + read_real("kowiki_text", "wiki_01")
    assert len(found) == 284
    assert sum(isinstance(r, RejectedRow) for r in found) == 65
    text = "".join(column(found, "text"))
    assert "&lt;" not in text
    assert "(, " not in text
    assert sum(bool(c) for c in column(found, "continuation")) > 190
    used = "".join(column(found, "continuation") + column(found, "first_paragraph"))
    assert "formula_" not in used
    assert "개요." not in used
    assert ", )" not in used
    assert all(len(c) <= 400 for c in column(found, "continuation"))
    assert all(not p.endswith("생애.") for p in column(found, "first_paragraph"))


def test_pawsx_control_characters(read_real: ReadsReal, shared_sources: Path) -> None:
    text = (shared_sources / "pawsx_ko/dev_2k.tsv").read_bytes().decode()
    assert len(text.splitlines()) == 2002
    found = read_real("pawsx_ko", "dev_2k.tsv")
    assert len(found) == 2000
    assert found[-1].line == 2001
    assert all(r.reason == "placeholder" for r in found if isinstance(r, RejectedRow))
    ours = sum(t.count('"') for name in ("sentence1", "sentence2") for t in column(found, name))
    dropped = sum(r.row.count('"') for r in found if isinstance(r, RejectedRow))
    assert ours + dropped == text.count('"')


def test_parakqc_pairs_respect_the_groups(read_real: ReadsReal, shared_sources: Path) -> None:
    from kit19_ray.sources.readers.text import normalise

    data = (shared_sources / "parakqc/paraKQC_v1.txt").read_bytes().split(b"\r\n")
    groups: dict[str, set[int]] = {}
    acts: dict[int, str] = {}
    for i, line in enumerate(data):
        _, act, sentence = line.decode().split("\t")
        groups.setdefault(normalise(sentence), set()).add(i // 10)
        acts[i // 10] = act
    same_act = 0
    for r in raws(read_real("parakqc", "paraKQC_v1.txt")):
        mine = (r.line - 1) // 10
        shared = mine in groups[r.fields["sentence2"]]
        assert shared if r.fields["label"] == "same" else groups[r.fields["sentence2"]] - {mine}
        assert r.fields["act"] == acts[mine]
        same_act += any(acts[g] == acts[mine] for g in groups[r.fields["sentence2"]])
    assert same_act > 9900  # the different pairs are hard ones
    sizes = Counter(r.group for r in raws(read_real("parakqc", "paraKQC_v1.txt"))).values()
    assert len(sizes) >= 250 and max(sizes) <= 50  # blocks of four groups, and of what is left over


@pytest.mark.parametrize(
    ("name", "path", "most"), [("parakqc", "paraKQC_v1.txt", 0.58), ("stylekqc", "act/train.tsv", 0.8)]
)
def test_no_threshold_on_shared_bigrams_tells_the_labels_apart(
    read_real: ReadsReal, name: str, path: str, most: float
) -> None:
    def shared(row: SourceRow) -> float:
        one, other = (
            {t[i : i + 2] for i in range(len(t) - 1)}
            for t in ("".join(filter(str.isalnum, row.fields[f"sentence{n}"])) for n in (1, 2))
        )
        return len(one & other) / max(1, len(one | other))

    found = sorted((shared(row), row.fields["label"] == "same") for row in raws(read_real(name, path)))
    right = same = sum(is_same for _, is_same in found)
    best = 0
    for at, (value, is_same) in enumerate(found):  # below the threshold: different
        if at == 0 or found[at - 1][0] < value:
            best = max(best, right)
        right += -1 if is_same else 1
    assert same == pytest.approx(len(found) / 2, abs=1)
    assert best / len(found) < most


def test_parakqc_splits_share_no_sentence_but_the_duplicates(read_real: ReadsReal) -> None:
    blocks: dict[str, set[str | None]] = {}
    for r in raws(read_real("parakqc", "paraKQC_v1.txt")):
        for name in ("sentence1", "sentence2"):
            blocks.setdefault(r.fields[name], set()).add(r.group)
    assert sum(len(b) > 1 for b in blocks.values()) <= 13


def test_stylekqc_styles_say_nothing_of_the_label(read_real: ReadsReal) -> None:
    found = raws(read_real("stylekqc", "act/train.tsv"))
    assert Counter(r.fields["style1"] for r in found) == {"formal": 12000, "informal": 11999}
    crossed = Counter(r.fields["label"] for r in found if r.fields["style1"] != r.fields["style2"])
    assert abs(crossed["same"] - crossed["different"]) < 0.02 * len(found)
    assert {r.fields["act"] for r in found} == set("0123")
    assert {r.fields["topic"] for r in found} == set("012345")


def test_question_pair_label_is_inverted(read_real: ReadsReal) -> None:
    found = raws(read_real("question_pair", "kor_pair_train.csv"))
    identical = [r.fields["label"] for r in found if r.fields["question1"] == r.fields["question2"]]
    assert len(identical) > 100
    assert identical.count("same") / len(identical) > 0.98


def test_nsmc_is_140_characters_after_unnesting(read_real: ReadsReal, shared_sources: Path) -> None:
    data = (shared_sources / "nsmc/ratings_test.txt").read_bytes()
    assert len(re.findall(rb'\t"""[^\n]*"""\t', data)) == 233
    found = read_real("nsmc", "ratings_test.txt")
    texts = column(found, "text")
    assert max(map(len, texts)) == 140
    assert not any('"""' in t for t in texts)
    empty = [r for r in found if isinstance(r, RejectedRow)]
    assert [r.reason for r in empty] == ["empty_field"] * 3


def test_sae4k_byte_order_mark_is_no_letter(read_real: ReadsReal) -> None:
    found = read_real("sae4k", "sae4k_v1.txt")
    first = raws(found)[0]
    assert first.line == 1
    assert "가" <= first.fields["sentence"][0] <= "힣"
    assert all(t == t.strip() for t in column(found, "sentence"))


def test_petitions_empty_contents_are_the_briefings(read_real: ReadsReal) -> None:
    found = [
        r
        for month in ("2017-08", *(f"2019-0{m}" for m in range(4, 9)))
        for r in read_real("petitions", f"petitions_{month}")
    ]
    assert len(found) == 3691
    rejects = [r for r in found if isinstance(r, RejectedRow)]
    assert Counter(r.reason for r in rejects) == {"empty_field": 23, "masked_title": 552}
    contents = "".join(column(found, "content"))
    assert "본 게시물의 일부 내용이" not in contents
    assert not re.search(r"01[0-9]-[0-9]{4}-[0-9]{4}|[a-z0-9]+@[a-z]+\.(?:com|net)", contents)
    assert max(len(t) for t in column(found, "content")) > 20000
    assert all(n.isdecimal() for n in column(found, "num_agree"))


def test_math_answers_and_code(read_real: ReadsReal) -> None:
    found = read_real("math_korean", "train.csv")
    answers = column(found, "answer")
    assert sum(bool(re.fullmatch(r"-?\d+", a)) for a in answers) == 2247
    assert sum(bool(re.fullmatch(r"-?\d+\.\d+", a)) for a in answers) == 355
    assert found[-1].line + raws(found)[-1].fields["code"].count("\n") == 14280
    assert all("\r" not in c for c in column(found, "code"))
    assert all("\n" in c for c in column(found, "code"))


def adhoc(options: dict[str, object]) -> Source:
    """A source that is not in the catalogue, as a task file of a stranger's would have it."""
    base = load_catalog()["question_pair"].model_dump() | {"options": options}
    return Source.model_validate(base)


def test_files_of_the_sets_that_the_catalogue_leaves_out(shared_sources: Path) -> None:
    pairs = adhoc({"quoting": "csv", "labels": {"is_duplicate": {"0": "same", "1": "different"}}})
    for name, rows in (("train.txt", 6136), ("validation.txt", 682), ("test.txt", 758)):
        file = LocatedFile(str(shared_sources / "question_pair" / name), name, "train")
        assert len(raws(list(pairs.read(file)))) == rows
    problems = adhoc({"delimiter": ",", "quoting": "csv", "keep": ["problem"]})
    file = LocatedFile(str(shared_sources / "math_korean/test.csv"), "test.csv", "test")
    assert len(raws(list(problems.read(file)))) == 282
    sts = adhoc({"labels": {"similarity": {"0": "different", "1": "same"}}})
    file = LocatedFile(str(shared_sources / "stylekqc/sts/dev.tsv"), "dev.tsv", "validation")
    labels = Counter(r.fields["similarity"] for r in raws(list(sts.read(file))))
    assert labels == {"same": 5400, "different": 5400}


def test_evaluation_sets_are_within_reach_of_the_generic_reader(shared_sources: Path) -> None:
    for path, quoting, rows in (
        ("eval/kmhas/kmhas_test.txt", "csv", 21939),
        ("eval/kmhas/kmhas_valid.txt", "csv", 8776),
        ("eval/korean_hate_speech/labeled/train.tsv", "none", 7896),
        ("eval/korean_hate_speech/labeled/dev.tsv", "none", 471),
    ):
        file = LocatedFile(str(shared_sources / path), path, "test")
        assert len(raws(list(adhoc({"quoting": quoting}).read(file)))) == rows


def test_a_column_that_is_not_there(shared_sources: Path) -> None:
    file = LocatedFile(str(shared_sources / "question_pair/kor_pair_train.csv"), "kor_pair_train.csv", "train")
    with pytest.raises(SourceError, match=r"kor_pair_train.csv, line 1: column 'question_1' is missing.*'question1'"):
        list(adhoc({"delimiter": ",", "quoting": "csv", "keep": ["question_1"]}).read(file))
