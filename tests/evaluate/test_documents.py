from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.evaluate import kobest

TESTS = {  # rows of each published test set, and how often each label of the hub occurs
    "kobest_boolq": {0: 699, 1: 705},
    "kobest_copa": {0: 504, 1: 496},
    "kobest_hellaswag": {0: 116, 1: 126, 2: 132, 3: 126},
    "kobest_sentineg": {0: 197, 1: 200},
    "kobest_wic": {0: 635, 1: 625},
}
FIELDS = {
    "kobest_boolq": {"paragraph", "question", "label"},
    "kobest_copa": {"premise", "question", "alternative_1", "alternative_2", "label"},
    "kobest_hellaswag": {"context", "ending_1", "ending_2", "ending_3", "ending_4", "label"},
    "kobest_sentineg": {"sentence", "label"},
    "kobest_wic": {"word", "context_1", "context_2", "label"},
}


def rows(path: str) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize("task", kobest.LABELS)
def test_documents_of_the_samples(task: str, configured: Any) -> None:
    found = kobest.documents(configured(), task)
    documents = rows(found.files["test"])
    assert {"train", "test"} <= set(found.files)
    assert len(documents) == 24
    assert all(set(document) == FIELDS[task] for document in documents)
    assert {document["label"] for document in documents} == set(kobest.LABELS[task].values())


@pytest.mark.real_data
@pytest.mark.parametrize("task", kobest.LABELS)
def test_documents_of_the_real_files(task: str, configured: Any, shared_sources: Path) -> None:
    found = kobest.documents(configured(f"data.sources={shared_sources}"), task)
    labels = Counter(document["label"] for document in rows(found.files["test"]))
    assert sum(labels.values()) == sum(TESTS[task].values())
    assert set(found.files) == {"train", "validation", "test"}
    if task in ("kobest_boolq", "kobest_sentineg"):
        assert labels == TESTS[task]  # counted apart from this code


@pytest.mark.real_data
def test_text_is_left_as_published(configured: Any, shared_sources: Path) -> None:
    config = configured(f"data.sources={shared_sources}")
    boolq = rows(kobest.documents(config, "kobest_boolq").files["test"])
    spaced = [d for d in boolq if any(d[f] != d[f].strip() for f in ("paragraph", "question"))]
    assert len(spaced) == 69
    sentineg = rows(kobest.documents(config, "kobest_sentineg").files["test"])
    assert sentineg[0] == {"sentence": "택배사 정말 마음에 듬", "label": 1}  # not the sentence it was made from


def copied(samples: Path, target: Path) -> Path:
    for task in kobest.LABELS:
        shutil.copytree(samples / task, target / task)
    return target


def test_a_missing_test_file_is_named(configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    (folder / "kobest_wic" / "test.tsv").unlink()
    config = configured(f"data.sources={folder}", "data.verify=false")
    with pytest.raises(SourceError, match=r"'kobest_wic': its test split is missing test\.tsv") as caught:
        kobest.documents(config, "kobest_wic")
    assert "put it at" in caught.value.hint


def test_solved_examples_need_the_train_file(configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    (folder / "kobest_copa" / "train.tsv").unlink()
    words = [f"data.sources={folder}", "data.verify=false"]
    assert set(kobest.documents(configured(*words), "kobest_copa").files) == {"test"}
    with pytest.raises(SourceError, match="train split is missing"):
        kobest.documents(configured(*words, "evaluate.num_fewshot=2"), "kobest_copa")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("25\t본문\t질문", r"line 26: too_few_columns"),
        ("25\t본문\t질문\tMaybe", r"line 26: label 'Maybe' is not one of"),
    ],
)
def test_a_bad_row_is_refused(row: str, said: str, configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    file = folder / "kobest_boolq" / "test.tsv"
    file.write_bytes(file.read_bytes().rstrip() + b"\r\n" + row.encode())
    with pytest.raises(SourceError, match=said):
        kobest.documents(configured(f"data.sources={folder}", "data.verify=false"), "kobest_boolq")


def test_another_file_than_the_published_one_is_refused(configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    with pytest.raises(SourceError, match="the published file"):
        kobest.documents(configured(f"data.sources={folder}"), "kobest_boolq")


def test_changed_files_make_other_documents(configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    config = configured(f"data.sources={folder}", "data.verify=false")
    before = kobest.documents(config, "kobest_sentineg").files["test"]
    file = folder / "kobest_sentineg" / "test.tsv"
    file.write_text(file.read_text("utf-8").replace("냄새", "향기"), "utf-8")
    after = kobest.documents(config, "kobest_sentineg").files["test"]
    assert before != after
    assert any("향기" in document["sentence"] for document in rows(after))
