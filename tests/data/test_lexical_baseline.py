from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.artifacts import lexical
from kit19_ray.data import lexical_baseline
from kit19_ray.tasks.task import Task, load_tasks

TASKS = load_tasks(["nsmc", "parakqc", "kobest_copa", "sae4k", "korsts"])


def right(task: Task, train: list[dict[str, Any]], asked: list[dict[str, Any]]) -> int:
    """How many of the records that are asked it answers as their label says."""
    said = lexical_baseline.answer(task, train, asked)
    assert said == lexical_baseline.answer(task, train, asked)
    return sum(task.labels[label] == row[str(task.spec.answer)] for label, row in zip(said, asked, strict=True))


def test_words_that_go_with_a_label_are_found() -> None:
    good, bad = ("정말 재미있고 훌륭한 영화", "positive"), ("지루하고 시시한 영화", "negative")
    rows = [{"text": f"{text} {n}번", "label": label} for n in range(20) for text, label in (good, bad)]
    assert right(TASKS["nsmc"], rows[:30], rows[30:]) == 10


def test_a_pair_is_told_by_what_the_sentences_share() -> None:
    words = ["기차 시간표", "전자 우편", "오늘 날씨", "회의 자료", "저녁 약속", "음악 방송", "세탁기 상태", "거실 조명"]
    same = [{"sentence1": f"{w} 알려 줘", "sentence2": f"{w} 말해 줘", "label": "same"} for w in words]
    apart = [
        {"sentence1": f"{w} 알려 줘", "sentence2": f"{other} 말해 줘", "label": "different"}
        for w, other in zip(words, [*words[1:], words[0]], strict=True)
    ]
    assert right(TASKS["parakqc"], [*same[:6], *apart[:5]], [*same[6:], *apart[6:7]]) == 3


def test_an_alternative_is_chosen_by_its_words() -> None:
    rows = [
        {
            "premise": f"{n}번째 날이었다.",
            "question": "결과",
            f"alternative_{1 + n % 2}": f"그래서 {n}시에 잠이 들었다.",
            f"alternative_{2 - n % 2}": f"바위가 {n}개로 늘었다.",
            "label": str(1 + n % 2),
        }
        for n in range(24)
    ]
    assert right(TASKS["kobest_copa"], rows[:18], rows[18:]) == 6


@pytest.mark.parametrize("labels", [["same"], ["same", "different"]])
def test_few_rows_are_enough(labels: list[str]) -> None:
    rows = [{"sentence1": "가", "sentence2": "", "label": label} for label in labels]
    assert len(lexical_baseline.answer(TASKS["parakqc"], rows, rows)) == len(rows)


def test_only_what_a_prompt_shows_is_seen() -> None:
    assert lexical_baseline.shown(TASKS["sae4k"]) == ["sentence"]
    assert lexical_baseline.shown(TASKS["korsts"]) == ["sentence1", "sentence2"]


def test_answers_are_kept_beside_the_rows(tmp_path: Any) -> None:
    assert lexical.read(f"file://{tmp_path}") == {}
    lexical.write(f"file://{tmp_path}", {"nsmc": {"b-0": 1, "a-0": 0}})
    assert lexical.read(f"file://{tmp_path}") == {"nsmc": {"a-0": 0, "b-0": 1}}
