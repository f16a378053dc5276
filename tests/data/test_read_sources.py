"""A file of which not one row is a record is an error, however many parts and companions it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.config.schema import GatesConfig
from kit19_ray.data import read_sources, source_parts
from kit19_ray.data.checked_rows import Reading, Receipt
from kit19_ray.data.checks import Checker
from kit19_ray.data.progress import StreamProgress
from kit19_ray.errors import SourceError
from kit19_ray.io import storage
from kit19_ray.sources.readers.base import LocatedFile
from kit19_ray.tasks.task import load_tasks

pytestmark = pytest.mark.ray
HEADER = "id\tdocument\tlabel\n"
GOOD = HEADER + "".join(f"{n}\t이 영화는 {n}번 보았다\t{n % 2}\n" for n in range(50))


def read(folder: Path, *files: str, size: int = source_parts.PART) -> Receipt:
    """The receipt of nsmc from files of this text."""
    task, parts = load_tasks(["nsmc"])["nsmc"], []
    for number, text in enumerate(files):
        path = folder / f"rows {number}.tsv"
        path.write_text(text, encoding="utf-8")
        located = LocatedFile(f"file://{path}", path.name, "train", path.stat().st_size)
        parts += source_parts.measure(task.source, located, size)[2]
    assert size == source_parts.PART or len(parts) > len(files)
    reading = Reading(Checker(task, 0, 0.1, GatesConfig()), parts, f"file://{folder}/out/rows", 2)
    assert storage.normalise(reading.uri)
    return read_sources.read_and_check([reading], None, StreamProgress(1))["nsmc"]


@pytest.mark.parametrize(
    ("bad", "size", "said"),
    [
        # The reader of a part cannot know; the first of its rows is shown.
        (HEADER + "버린 줄\n" * 30, 100, r"30 rows is usable: 30 of them too_few_columns, such as line 2: '버린 줄'\n"),
        # The reader is content, the task is not: its answer is none of its labels.
        (
            GOOD.replace("\t0\n", "\t7\n").replace("\t1\n", "\t7\n"),
            source_parts.PART,
            "50 rows is usable: 50 of them unknown_label.*line 2",
        ),
    ],
    ids=["in parts", "no label that the task knows"],
)
def test_one_of_several_files_without_a_record(
    tmp_path: Path, ray_cluster: None, bad: str, size: int, said: str
) -> None:
    with pytest.raises(SourceError, match=rf"(?s)rows 1.tsv.*: not one of its {said}"):
        read(tmp_path, GOOD, bad, size=size)


def test_a_file_with_one_record_is_read(tmp_path: Path, ray_cluster: None) -> None:
    receipt = read(tmp_path, HEADER + "버린 줄\n" * 30 + "1\t좋은 영화\t1\n", size=100)
    assert (receipt.rows, receipt.records, dict(receipt.dropped)) == (31, 1, {"too_few_columns": 30})
