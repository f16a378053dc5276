from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.evaluate import documents, suites

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


@pytest.mark.parametrize("task", documents.LABELS)
def test_documents_of_the_samples(task: str, configured: Any) -> None:
    found = documents.documents(configured(), task)
    found_rows = rows(found.files["test"])
    assert {"train", "test"} <= set(found.files)
    assert len(found_rows) == 24
    assert all(set(document) == FIELDS[task] for document in found_rows)
    assert {document["label"] for document in found_rows} == set(documents.LABELS[task].values())


@pytest.mark.real_data
@pytest.mark.parametrize("task", documents.LABELS)
def test_documents_of_the_real_files(task: str, configured: Any, shared_sources: Path) -> None:
    found = documents.documents(configured(f"data.sources={shared_sources}"), task)
    labels = Counter(document["label"] for document in rows(found.files["test"]))
    assert sum(labels.values()) == sum(TESTS[task].values())
    assert set(found.files) == {"train", "validation", "test"}
    if task in ("kobest_boolq", "kobest_sentineg"):
        assert labels == TESTS[task]  # counted apart from this code


@pytest.mark.real_data
def test_text_is_left_as_published(configured: Any, shared_sources: Path) -> None:
    config = configured(f"data.sources={shared_sources}")
    boolq = rows(documents.documents(config, "kobest_boolq").files["test"])
    spaced = [d for d in boolq if any(d[f] != d[f].strip() for f in ("paragraph", "question"))]
    assert len(spaced) == 69
    sentineg = rows(documents.documents(config, "kobest_sentineg").files["test"])
    assert sentineg[0] == {"sentence": "택배사 정말 마음에 듬", "label": 1}  # not the sentence it was made from


def copied(samples: Path, target: Path) -> Path:
    for task in documents.LABELS:
        shutil.copytree(samples / task, target / task)
    return target


def test_a_missing_test_file_is_named(configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    (folder / "kobest_wic" / "test.tsv").unlink()
    config = configured(f"data.sources={folder}", "data.verify=false")
    with pytest.raises(SourceError, match=r"'kobest_wic': its test split is missing test\.tsv") as caught:
        documents.documents(config, "kobest_wic")
    assert "put it at" in caught.value.hint


def test_solved_examples_need_the_train_file(configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    (folder / "kobest_copa" / "train.tsv").unlink()
    words = [f"data.sources={folder}", "data.verify=false"]
    assert set(documents.documents(configured(*words), "kobest_copa").files) == {"test"}
    with pytest.raises(SourceError, match="train split is missing"):
        documents.documents(configured(*words, "evaluate.num_fewshot=2"), "kobest_copa")


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
        documents.documents(configured(f"data.sources={folder}", "data.verify=false"), "kobest_boolq")


def test_another_file_than_the_published_one_is_refused(configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    with pytest.raises(SourceError, match="the published file"):
        documents.documents(configured(f"data.sources={folder}"), "kobest_boolq")


def test_changed_files_make_other_documents(configured: Any, samples: Path, tmp_path: Path) -> None:
    folder = copied(samples, tmp_path / "sources")
    config = configured(f"data.sources={folder}", "data.verify=false")
    before = documents.documents(config, "kobest_sentineg").files["test"]
    file = folder / "kobest_sentineg" / "test.tsv"
    file.write_text(file.read_text("utf-8").replace("냄새", "향기"), "utf-8")
    after = documents.documents(config, "kobest_sentineg").files["test"]
    assert before != after
    assert any("향기" in document["sentence"] for document in rows(after))


STS = {
    "guid": "a-1",
    "source": "ours",
    "sentence1": "기차가 늦게 왔다.",
    "sentence2": "기차가 연착했다.",
    "labels": {"label": 4.5, "real-label": 4.42, "binary-label": 1},
}


def klue(folder: Path, **files: Any) -> Path:
    """A sources folder with KLUE's files."""
    target = folder / "sources" / "eval" / "klue"
    target.mkdir(parents=True)
    names = {"sts": "klue-sts-v1.1_dev.json", "ynat": "ynat-v1.1_dev.json", "sts_train": "klue-sts-v1.1_train.json"}
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (target / names[name]).write_text(text, "utf-8")
    return folder / "sources"


def test_documents_of_klue(configured: Any, tmp_path: Path) -> None:
    folder = klue(tmp_path, sts=[STS], ynat=[{"guid": "y-0", "title": "환율 사흘째 올라", "label": "경제", "x": 1}])
    config = configured(f"data.sources={folder}", "data.verify=false")
    sts = documents.documents(config, "klue_sts").files
    assert set(sts) == {"validation"}
    assert rows(sts["validation"]) == [
        {"guid": "a-1", "sentence1": STS["sentence1"], "sentence2": STS["sentence2"], "labels": {"binary-label": 1}}
    ]
    ynat = documents.documents(config, "klue_ynat").files
    assert rows(ynat["validation"]) == [{"guid": "y-0", "title": "환율 사흘째 올라", "label": 1}]
    assert [documents.choices(task) for task in suites.KLUE] == [2, 7]


def test_klues_solved_examples_come_from_its_train_file(configured: Any, tmp_path: Path) -> None:
    words = ["data.verify=false", "evaluate.num_fewshot=2"]
    folder = klue(tmp_path, sts=[STS])
    with pytest.raises(SourceError, match=r"come from klue-sts-v1\.1_train\.json, which is not in") as caught:
        documents.documents(configured(f"data.sources={folder}", *words), "klue_sts")
    assert "klue_benchmark/klue-sts-v1.1/klue-sts-v1.1_train.json" in caught.value.hint
    (folder / "eval" / "klue" / "klue-sts-v1.1_train.json").write_text(json.dumps([STS]), "utf-8")
    found = documents.documents(configured(f"data.sources={folder}", *words), "klue_sts")
    assert set(found.files) == {"train", "validation"} and set(found.sha256) == {
        "klue-sts-v1.1_dev.json", "klue-sts-v1.1_train.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[{", "is no JSON"),
        ({"guid": 1}, "KLUE's files are JSON arrays, this is a dict"),
        ([STS, {"guid": "a-2"}], "item 1: no document of klue_sts: KeyError"),
        ([{**STS, "labels": {"binary-label": 2}}], "binary-label 2 is neither 0 nor 1"),
    ],
)
def test_a_klue_file_that_is_none(content: Any, said: str, configured: Any, tmp_path: Path) -> None:
    folder = klue(tmp_path, sts=content)
    with pytest.raises(SourceError, match=said):
        documents.documents(configured(f"data.sources={folder}", "data.verify=false"), "klue_sts")
