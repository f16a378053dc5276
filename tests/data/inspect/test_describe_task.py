from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.data.inspect import describe_task
from kit19_ray.errors import TaskError
from kit19_ray.tasks.task import load_tasks

OWN = """
category: sentiment_analysis
description: 스물한 번째 과제
source:
  title: 사내 자료
  homepage: https://example.org
  licence: {name: 사내용, commercial: false, derivatives: true}
  citation: 우리
  reader: jsonl
  options: {keep: [text, label]}
  files:
    - {path: own.jsonl, split: train}
splits: [train]
fields: [text, label]
answer: label
choices: {"good": 좋음, "bad": 나쁨}
templates:
  - {name: ask, kind: open, instruction: 평가하세요., input: "{{ text }}", outputs: ["{{ choice }}"]}
  - {name: rare, kind: open, instruction: "어때요?", input: "{{ text }}", outputs: ["맞다"], requires: {label: [good]}}
metrics: [accuracy]
"""


def config(*words: str) -> Config:
    return loading.load(None, words, {}, needs_root=False)


def kit19(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kit19_ray", *words], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", load_tasks())
def test_every_template_of_every_task_has_an_example(name: str) -> None:
    found = describe_task.describe(config("data.sources=samples"), name)
    assert [t["name"] for t in found["templates"]] == [t.name for t in load_tasks([name])[name].spec.templates]
    for template in found["templates"]:
        assert template["example"]["template"] == template["name"] and template["example"]["output"]
    assert any(f["present"] and f["used"] for f in found["files"])
    assert json.loads(json.dumps(found)) == found


def test_what_a_licence_forbids_is_said() -> None:
    assert describe_task.describe(config(), "unsmile")["licence"]["forbids"] == ["commercial use", "derivatives"]
    assert describe_task.describe(config(), "nsmc")["licence"]["forbids"] == []


def test_files_are_present_absent_or_not_looked_for(tmp_path: Path) -> None:
    files = describe_task.describe(config(), "nsmc")["files"]
    assert {f["present"] for f in files} == {None}
    assert {f["path"]: f["used"] for f in files} == {"ratings_train.txt": True, "ratings_test.txt": False}
    (tmp_path / "sources" / "petitions").mkdir(parents=True)
    (tmp_path / "sources" / "petitions" / "petitions_2017-08").write_text("{}\n", encoding="utf-8")
    found = describe_task.describe(config(f"root={tmp_path}"), "petitions")
    present = [f for f in found["files"] if f["present"]]
    assert [f["found"] for f in present] == [{"petitions_2017-08": 3}]
    assert all(f["present"] is False for f in found["files"] if f not in present)


def test_a_task_of_ones_own_is_shown_with_its_own_records(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN, encoding="utf-8")
    words = [f"data.tasks_dir={tmp_path}", f"data.sources={tmp_path}"]
    empty = describe_task.describe(config(*words), "own")
    assert [t["example"] for t in empty["templates"]] == [None, None]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own.jsonl").write_text('{"text": "지루했다", "label": "bad"}\n', encoding="utf-8")
    found = describe_task.describe(config(*words), "own")
    assert found["templates"][0]["example"]["output"] == "나쁨"
    assert found["templates"][1]["example"] is None
    shown = kit19("tasks", "show", "own", *words).stdout
    assert "no record at hand fits it" in shown and "2. rare (open, label is good)" in shown


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    with pytest.raises(TaskError, match="'nsmcc' is no task \\(did you mean 'nsmc'\\?\\); known: apeach, "):
        describe_task.describe(config(), "nsmcc")


def test_the_command_prints_all_of_it_and_json() -> None:
    shown = kit19("tasks", "show", "hatescore", "data.sources=samples").stdout
    for text in (
        "forbids     commercial use",
        "HateScore.csv  [train]  present",
        "10. ",
        "choices     hate '혐오 발언'",
    ):
        assert text in shown, text
    assert json.loads(kit19("tasks", "show", "hatescore", "--json").stdout)["category"] == "hate_speech"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show"], "Missing argument 'NAME'"),
        (["show", "data.quota=3"], "the name of a task is missing"),
        (["show", "unsmil"], "did you mean 'unsmile'"),
        (["nsmc"], "No such command 'nsmc'"),
    ],
)
def test_mistakes_exit_2(words: list[str], said: str) -> None:
    done = kit19("tasks", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_narrow_terminal_cuts_no_cell() -> None:
    assert "…" not in kit19("tasks").stdout
