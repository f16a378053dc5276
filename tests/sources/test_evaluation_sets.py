"""What an item of an evaluation set is: its texts, the gold alternative, or each text apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.sources import evaluation_sets
from kit19_ray.sources.catalog import load_catalog
from kit19_ray.sources.evaluation_sets import EvaluationSet, Located
from kit19_ray.sources.readers.base import LocatedFile

COPA = "sentence\tquestion\t1\t2\tAnswer\n비가 왔다.\t결과\t길이 젖었다.\t별이 떴다.\t{}\n"


def located(folder: Path, spec: EvaluationSet, source: str, text: str) -> Located:
    (folder / "file").write_text(text, encoding="utf-8")
    file = LocatedFile(str(folder / "file"), "file", "test")
    return Located("set", load_catalog()[source], (file,), spec, {})


@pytest.mark.parametrize("label", [1, 2])
def test_the_gold_alternative_is_part_of_the_item(tmp_path: Path, label: int) -> None:
    spec = evaluation_sets.load()["kobest_copa"]
    (found,) = evaluation_sets.items(located(tmp_path, spec, "kobest_copa", COPA.format(label)))
    assert found == ["비가 왔다.", ["길이 젖었다.", "별이 떴다."][label - 1]]


def test_texts_apart_are_items_of_their_own(tmp_path: Path) -> None:
    text = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\nmain\tf\t2012\t1\t2.0\t말을 탄다.\t걷는다.\n"
    for apart, items in ((False, [["말을 탄다.", "걷는다."]]), (True, [["말을 탄다."], ["걷는다."]])):
        spec = EvaluationSet(source="korsts", splits=["test"], texts=["sentence1", "sentence2"], apart=apart)
        assert list(evaluation_sets.items(located(tmp_path, spec, "korsts", text))) == items


def test_a_split_that_is_trained_on_is_no_evaluation_set(samples: Path) -> None:
    every, absent = evaluation_sets.find(str(samples), check=False)
    names = {found.name for found in every} | set(absent)
    assert {"nsmc", "korsts"} <= names
    drawn = {"nsmc": {"test"}, "korsts": {"validation"}}
    found, absent = evaluation_sets.find(str(samples), False, drawn)
    assert "nsmc" not in {f.name for f in found} | set(absent)
    assert {file.split for f in found if f.name == "korsts" for file in f.files} <= {"test"}
