from collections import Counter
from collections.abc import Callable

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers.base import RejectedRow, SourceRow

Reads = Callable[..., list[SourceRow | RejectedRow]]


def parakqc(groups: int, rows: int = 10) -> str:
    return "".join(f"0\t1\t묶음{g} 문장{i}\r\n" for g in range(groups) for i in range(rows))


def number(sentence: str) -> int:
    return int(sentence.split()[0].removeprefix("묶음"))


@pytest.mark.parametrize("groups", [2, 3, 4, 5, 9])
def test_pairs_are_balanced_unique_and_stay_in_their_block(read_text: Reads, groups: int) -> None:
    found = read_text("parakqc", parakqc(groups))
    assert all(isinstance(r, SourceRow) for r in found)
    assert [r.line for r in found] == list(range(1, 10 * groups + 1))
    assert Counter(r.fields["label"] for r in found) == {"same": 5 * groups, "different": 5 * groups}
    unordered = {frozenset((r.fields["sentence1"], r.fields["sentence2"])) for r in found}
    assert len(unordered) == len(found)
    blocks: dict[int, set[str | None]] = {}
    for r in found:
        one, two = number(r.fields["sentence1"]), number(r.fields["sentence2"])
        assert (one == two) == (r.fields["label"] == "same")
        for g in (one, two):
            blocks.setdefault(g, set()).add(r.group)
    assert all(len(b) == 1 for b in blocks.values())


def test_a_lone_group_has_no_different_pairs(read_text: Reads) -> None:
    found = read_text("parakqc", parakqc(1))
    assert Counter(r.reason if isinstance(r, RejectedRow) else r.fields["label"] for r in found) == {
        "same": 5,
        "no_partner": 5,
    }


def test_a_truncated_last_group_is_rejected_whole(read_text: Reads) -> None:
    data = "".join(parakqc(3).splitlines(keepends=True)[:27])
    found = read_text("parakqc", data)
    assert [r.reason for r in found[20:] if isinstance(r, RejectedRow)] == ["incomplete_group"] * 7
    assert len(found) == 27


def test_a_bad_row_keeps_its_place_in_the_group(read_text: Reads) -> None:
    lines = parakqc(2).splitlines(keepends=True)
    lines[3] = "깨진 줄\r\n"
    lines[14] = "0\t9x\t묶음1 문장4\r\n"
    found = read_text("parakqc", "".join(lines))
    assert [(r.line, r.reason) for r in found if isinstance(r, RejectedRow)] == [
        (4, "too_few_columns"),
        (15, "unknown_label"),
    ]
    for r in found:
        if isinstance(r, SourceRow):
            same = number(r.fields["sentence1"]) == number(r.fields["sentence2"])
            assert same == (r.fields["label"] == "same")


def test_equal_sentences_of_two_groups_never_make_a_different_pair(read_text: Reads) -> None:
    data = "".join(f"0\t0\t똑같은 말 {i // 2}\n" for i in range(10)) * 2
    for r in read_text("parakqc", data):
        if isinstance(r, SourceRow) and r.fields["label"] == "different":
            assert r.fields["sentence1"] != r.fields["sentence2"]


def style(groups: int, column: str) -> str:
    rows = [f"{g % 4}\t묶음{g} 문장{i}\n" for g in range(groups) for i in range(10)]
    return f"{column}\tsentence\n" + "".join(rows)


def test_stylekqc_knows_formal_from_informal_by_position(read_text: Reads) -> None:
    found = read_text("stylekqc", style(8, "act"), style(8, "topic"))
    assert [r.line for r in found] == list(range(2, 82))
    for r in found:
        for s in ("1", "2"):
            place = int(r.fields["sentence" + s].split("문장")[1])
            assert r.fields["style" + s] == ("formal" if place < 5 else "informal")
    styles = Counter((r.fields["label"], r.fields["style1"] == r.fields["style2"]) for r in found)
    assert abs(styles["same", True] - styles["different", True]) <= len(found) * 0.1  # no shortcut through style


def test_stylekqc_files_that_do_not_match(read_text: Reads) -> None:
    short = "".join(style(2, "topic").splitlines(keepends=True)[:-3])
    found = read_text("stylekqc", style(2, "act"), short)
    assert [(r.line, r.reason) for r in found if isinstance(r, RejectedRow)] == [
        (19, "misaligned"),
        (20, "misaligned"),
        (21, "misaligned"),
    ]
    longer = read_text("stylekqc", "".join(style(2, "act").splitlines(keepends=True)[:-1]), style(2, "topic"))
    assert longer[-1].line == 21
    assert isinstance(longer[-1], RejectedRow)
    assert longer[-1].reason == "misaligned"


def test_the_other_group_is_the_one_most_alike(read_text: Reads) -> None:
    """Groups 0 and 2 speak of trains, 1 and 3 of mail; only groups of one act and topic meet."""
    subjects = ["기차 시간표", "전자 우편 주소", "기차 시간표", "전자 우편 주소"]
    data = "".join(f"0\t1\t{subjects[g]} 묶음{g} 문장{i}\n" for g in range(4) for i in range(10))
    for r in read_text("parakqc", data):
        assert isinstance(r, SourceRow)
        assert r.fields["sentence1"][:3] == r.fields["sentence2"][:3]
    apart = "".join(f"{g % 2}\t1\t{subjects[0]} 묶음{g} 문장{i}\n" for g in range(4) for i in range(10))
    found = [r for r in read_text("parakqc", apart) if isinstance(r, SourceRow)]
    for r in found:
        one, two = (r.fields[f"sentence{n}"].split("묶음")[1][0] for n in (1, 2))
        assert int(one) % 2 == int(two) % 2


def test_stylekqc_without_its_companion(read_text: Reads) -> None:
    with pytest.raises(SourceError, match="topic/ file"):
        read_text("stylekqc", style(2, "act"))
