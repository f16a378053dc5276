"""UnSmile and HateScore: several flags or labels a comment, folded into hate, abuse or clean and the target groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from kit19_ray.sources.readers.base import LocatedFile, NoOptions, Opener, RejectedRow, SourceRow
from kit19_ray.sources.readers.delimited import DelimitedOptions, open_table
from kit19_ray.sources.readers.text import normalise

GROUPS = ("여성/가족", "남성", "성소수자", "인종/국적", "연령", "지역", "종교", "기타 혐오")
ABUSE, CLEAN = "악플/욕설", "clean"
_MACRO = {"혐오발언": "hate", "단순 악플": "abuse", "Clean": "clean"}
# Micro labels that are no group: what the file writes for clean rows, and abuse that comes along with hate.
_NO_TARGET = {"None", "단순 악플"}
# HateScore's generated sentences stand in copies that differ in who is spoken of: they are one group.
_OPENING = re.compile(r"(?:저 사람은|저 분은|저분은|저는|얘는|걔는|쟤는|그녀는|그는|당신은|너는|안녕하세요)[,.]? ")


def _without_opening(comment: str) -> str:
    opening = _OPENING.match(comment)
    return comment[opening.end() :] if opening else comment


def read_unsmile(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """text, label (hate, abuse or clean) and targets (group names joined by ", ", empty when none).

    A row without any flag is a reject (`no_label`), and so is one that is clean and something else
    (`contradictory_label`).
    """
    table = open_table(DelimitedOptions(), file, stream)
    text = table.index("문장")
    groups = [(name, table.index(name)) for name in GROUPS]
    abuse, clean = table.index(ABUSE), table.index(CLEAN)
    flags = [*(i for _, i in groups), abuse, clean]
    for row in table:
        if isinstance(row, RejectedRow):
            yield row
            continue
        cells = row.cells
        sentence = normalise(cells[text])
        targets = [name for name, i in groups if cells[i] == "1"]
        if not sentence:
            yield RejectedRow.of(row.line, "empty_field", " | ".join(cells))
        elif any(cells[i] not in ("0", "1") for i in flags):
            yield RejectedRow.of(row.line, "unknown_label", " | ".join(cells))
        elif cells[clean] == "1" and (targets or cells[abuse] == "1"):
            yield RejectedRow.of(row.line, "contradictory_label", " | ".join(cells))
        elif not targets and cells[abuse] == "0" and cells[clean] == "0":
            yield RejectedRow.of(row.line, "no_label", " | ".join(cells))
        else:
            label = "hate" if targets else "abuse" if cells[abuse] == "1" else "clean"
            yield SourceRow(
                row.line,
                {"text": sentence, "label": label, "targets": ", ".join(targets)},
                sentence,
            )


def read_hatescore(
    options: NoOptions, file: LocatedFile, stream: BinaryIO, opener: Opener | None = None
) -> Iterator[SourceRow | RejectedRow]:
    """text, label (hate, abuse or clean), targets as in UnSmile, and origin, the kind of text it comes from.

    Comments that differ in the pronoun they open with are one group.
    """
    table = open_table(DelimitedOptions(delimiter=",", quoting="csv"), file, stream)
    text, macro, micro, origin = (table.index(c) for c in ("comment", "macrolabel", "microlabel", "source"))
    for row in table:
        if isinstance(row, RejectedRow):
            yield row
            continue
        comment = normalise(row.cells[text])
        label = _MACRO.get(row.cells[macro].strip())
        names = [n.strip() for n in row.cells[micro].split(",")]
        targets = [n for n in names if n not in _NO_TARGET]
        if not comment:
            yield RejectedRow.of(row.line, "empty_field", " | ".join(row.cells))
        elif label is None or any(n not in GROUPS for n in targets) or (targets and label != "hate"):
            yield RejectedRow.of(row.line, "unknown_label", " | ".join(row.cells))
        else:
            fields = {"text": comment, "label": label, "targets": ", ".join(targets)}
            yield SourceRow(row.line, fields | {"origin": normalise(row.cells[origin])}, _without_opening(comment))
