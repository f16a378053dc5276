"""The embedded samples: enough of each, balanced, readable, and in the originals' own bytes."""

from collections import Counter
from pathlib import Path

import pytest

from kit19_ray.data.records import Record, to_record
from kit19_ray.sources.catalog import load_catalog
from kit19_ray.sources.files import SAMPLES, locate
from kit19_ray.sources.readers.base import RejectedRow, SourceRow
from kit19_ray.tasks.task import load_tasks

KOBEST = ["kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_sentineg", "kobest_wic"]
CASES = [(name, "train", 32) for name in load_catalog()] + [(name, "test", 24) for name in KOBEST]
REJECTS = {
    "kowiki_text": {"empty_body": 1},
    "pawsx_ko": {"placeholder": 1},
    "nsmc": {"empty_field": 1},
    "petitions": {"empty_field": 1},
}


def records(name: str, split: str) -> list[SourceRow | RejectedRow]:
    source = load_catalog()[name]
    return [r for file in locate(name, source, str(SAMPLES), [split]) for r in source.read(file)]


@pytest.mark.parametrize(("name", "split", "least"), CASES)
def test_enough_varied_and_balanced(name: str, split: str, least: int) -> None:
    found = records(name, split)
    raws = [r for r in found if isinstance(r, SourceRow)]
    assert len(raws) >= least
    assert Counter(r.reason for r in found if isinstance(r, RejectedRow)) == REJECTS.get(name, {})
    assert len({tuple(r.fields.values()) for r in raws}) == len(raws)
    labels = Counter(r.fields.get("label") for r in raws)
    assert max(labels.values()) <= 1.2 * min(labels.values())
    assert all(v for r in raws for k, v in r.fields.items() if k != "targets")


@pytest.mark.parametrize("name", sorted(load_tasks()))
def test_every_task_has_enough_balanced_records(name: str) -> None:
    task = load_tasks([name])[name]
    raws = [r for split in task.spec.splits for r in records(task.source_id, split) if isinstance(r, SourceRow)]
    held = [record for record in (to_record(task, "file", raw) for raw in raws) if isinstance(record, Record)]
    assert len(held) == len(raws) >= 32
    assert len({record.id for record in held}) == len(held)
    if task.spec.answer:
        labels = Counter(record.fields[task.spec.answer] for record in held)
        assert set(labels) == set(task.labels)
        assert max(labels.values()) <= 1.5 * min(labels.values())


def test_the_samples_are_said_to_be_ours() -> None:
    text = " ".join((SAMPLES / "README.md").read_text(encoding="utf-8").split())
    assert "Every record was written for this project" in text and "none is taken from a dataset" in text
    assert "Apache-2.0" in text


def test_the_originals_bytes() -> None:
    def data(path: str) -> bytes:
        return (SAMPLES / path).read_bytes()

    for path in ("question_pair/kor_pair_train.csv", "sae4k/sae4k_v1.txt"):
        assert data(path).startswith(b"\xef\xbb\xbf")
    crlf = ["sae4k/sae4k_v1.txt", "parakqc/paraKQC_v1.txt", "kobest_copa/train.tsv", "question_pair/kor_pair_train.csv"]
    for path in crlf:
        assert data(path).count(b"\r\n") == data(path).count(b"\n") > 30
        assert not data(path).endswith(b"\n")
    assert b"\r" not in data("kobest_hellaswag/train.tsv")
    assert not data("unsmile/unsmile_train_v1.0.tsv").endswith(b"\n")
    assert 0 < data("math_korean/train.csv").count(b"\r\n") < data("math_korean/train.csv").count(b"\n")
    assert b'\t"""' in data("nsmc/ratings_train.txt")


@pytest.mark.real_data
def test_no_sample_is_a_record_of_a_dataset(shared_sources: Path) -> None:
    def texts(base: Path) -> set[str]:
        found = set()
        for name, source in load_catalog().items():
            for split in source.splits():
                paths = [f.path for f in source.files if f.split == split and (base / name / f.path).is_file()]
                files = locate(name, source, str(base), [split]) if paths and not _lacking(base, name, split) else []
                for file in files:
                    for record in source.read(file):
                        if isinstance(record, SourceRow):
                            found |= {v for k, v in record.fields.items() if k not in SHORT and len(v) > 3}
        return found

    assert texts(SAMPLES) & texts(shared_sources) == set()


SHORT = {
    "label",
    "category",
    "targets",
    "topic",
    "style1",
    "style2",
    "origin",
    "word",
    "num_agree",
    "answer",
    "subject",
}


def _lacking(base: Path, name: str, split: str) -> bool:
    files = load_catalog()[name].files
    return any(
        f.split == split and not f.optional and not f.is_pattern and not (base / name / f.path).is_file() for f in files
    )
