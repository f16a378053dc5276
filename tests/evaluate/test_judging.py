from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import sample_file
from kit19_ray.config import loading
from kit19_ray.config.schema import JudgeConfig
from kit19_ray.errors import ConfigError, EvaluateError
from kit19_ray.evaluate import judge_questions, judging, stage
from kit19_ray.evaluate.judge_questions import Question
from kit19_ray.io import storage
from tests.evaluate.stand_in import StandIn, serving

LOGICKOR = {
    "id": 7,
    "category": "추론",
    "questions": ["공이 몇 개인가요?", "하나를 빼면요?"],
    "references": ["3개", None],
}
MT_BENCH = {"question_id": "mt-1", "category": "글쓰기", "turns": ["편지를 써 주세요."]}
PLAIN = {"instruction": "인사해 줘.", "answer": "안녕하세요."}


@pytest.mark.parametrize("form", ["jsonl", "array"])
def test_files_of_questions(form: str) -> None:
    rows = [LOGICKOR, MT_BENCH, PLAIN]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    text = f"{lines}\n" if form == "jsonl" else json.dumps(rows)
    assert judge_questions.parse(text, "q.jsonl") == [
        Question("7", "추론", ("공이 몇 개인가요?", "하나를 빼면요?"), ("3개", None)),
        Question("mt-1", "글쓰기", ("편지를 써 주세요.",), (None,)),
        Question("2", "all", ("인사해 줘.",), ("안녕하세요.",)),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is neither JSONL nor a JSON array"),
        ("", "holds no question"),
        ("[1]", "question 0: a question is an object, this is a int"),
        ('{"id": 1}', "question 0 has no text under any of questions, turns"),
        ('{"turns": ["가", ""]}', "question 0 has no text"),
    ],
)
def test_a_file_that_holds_none(text: str, said: str) -> None:
    with pytest.raises(EvaluateError, match=said):
        judge_questions.parse(text, "q.jsonl")


def test_two_files_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "q.jsonl").write_text(json.dumps(PLAIN), "utf-8")
    config = JudgeConfig(questions=[f"{tmp_path}/a/q.jsonl", f"{tmp_path}/b/q.jsonl"], endpoint="http://x/v1")
    with pytest.raises(EvaluateError, match="two files are called q"):
        judge_questions.read(config)
    with pytest.raises(ValueError, match="questions need an `endpoint`"):
        JudgeConfig(questions=["q.jsonl"])


@pytest.mark.parametrize(
    ("text", "grade"),
    [("좋다.\n[[7]]", 7), ("예: [[3]] 아니, [[ 8.5 ]]", 8.5), ("[[0]]", None), ("[[11]]", None), ("7점", None)],
)
def test_grades(text: str, grade: float | None) -> None:
    assert judging.grade_of(text) == grade


@pytest.mark.parametrize(
    ("first", "second", "points"),
    [
        ("[[A]]", "[[B]]", 1.0),
        ("[[B]]", "[[A]]", 0.0),
        ("[[A]]", "[[A]]", 0.5),  # whoever stands first wins: the judge looks at the place
        ("[[C]]", "[[C]]", 0.5),
        ("[[A]]", "[[C]]", 1.0),
        ("[[A]]", "음", None),
    ],
)
def test_verdicts_both_ways_round(first: str, second: str, points: float | None) -> None:
    assert judging.points_of(first, second) == points


def judge(text: str) -> str:
    """Three letters of answer are worth 3; of two answers the longer one is better."""
    if "[답변 A]" in text:
        first, second = text.partition("[답변 A]\n")[2].split("\n\n[답변 B]\n")
        return "[[A]]" if len(first) > len(second) else "[[B]]" if len(first) < len(second) else "[[C]]"
    answer = text.partition("[답변]\n")[2]
    return f"평가.\n[[{len(answer)}]]"


@pytest.fixture
def servers() -> Any:
    with serving() as model, serving() as judge_server:
        judge_server.write = judge
        yield model, judge_server


def run(servers: tuple[StandIn, StandIn], tmp_path: Path, *words: str) -> str:
    model, judge_server = servers
    (tmp_path / "logickor.jsonl").write_text(
        json.dumps(LOGICKOR, ensure_ascii=False) + "\n" + json.dumps(MT_BENCH, ensure_ascii=False), "utf-8"
    )
    base = [
        f"root={tmp_path}/runs", "evaluate.tasks=[]", "evaluate.held_out=false", f"evaluate.endpoint={model.url}",
        "evaluate.endpoint_api=chat", f"evaluate.judge.endpoint={judge_server.url}",
        f"evaluate.judge.questions=[{tmp_path}/logickor.jsonl]",
    ]  # fmt: skip
    return stage.run(loading.load(None, [*base, *words]), model.url, None)


def test_graded_answers_of_a_conversation(servers: Any, tmp_path: Path) -> None:
    model, judge_server = servers
    model.write = lambda text: {"공이 몇 개인가요?": "세 개예요", "하나를 빼면요?": "둘"}.get(text, "그리운 벗에게")
    uri = run(servers, tmp_path)
    scores = json.loads(storage.read_text(f"{uri}/scores.json"))["judge"]["logickor"]
    assert scores["score"] == pytest.approx((5 + 1 + 7) / 3) and (scores["n"], scores["unjudged"]) == (3, 0)
    assert scores["by_category"]["글쓰기"] == {"score": 7.0, "n": 1} and scores["by_turn"]["turn 2"]["score"] == 1
    second = next(body["messages"] for _, body in model.asked if len(body["messages"]) == 3)
    assert [turn["content"] for turn in second] == ["공이 몇 개인가요?", "세 개예요", "하나를 빼면요?"]
    texts = [body["messages"][1]["content"] for _, body in judge_server.asked]
    assert any("[참고 답안]\n3개" in text for text in texts)
    assert any("사용자: 공이 몇 개인가요?\n답변자: 세 개예요" in text and "[답변]\n둘" in text for text in texts)
    kept = {s["doc_id"]: s for s in sample_file.read(uri)}
    assert set(kept) == {"7.1", "7.2", "mt-1.1"} and kept["7.1"]["judgement"] == "평가.\n[[5]]"
    before = len(model.asked), len(judge_server.asked)
    assert run(servers, tmp_path) == uri and (len(model.asked), len(judge_server.asked)) == before


def test_pairs_against_another_evaluation(servers: Any, tmp_path: Path) -> None:
    model, _ = servers
    model.write = lambda text: "짧다"
    base = run(servers, tmp_path)
    model.write = lambda text: "길게 쓴 답" if "공이" in text else "짧다"
    model.models = ["tuned"]
    uri = run(servers, tmp_path, f"evaluate.judge.against={base}", "evaluate.endpoint_model=tuned")
    scores = json.loads(storage.read_text(f"{uri}/scores.json"))["judge"]["logickor"]
    assert scores["win"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    with pytest.raises(EvaluateError, match="holds no judged answers to logickor"):
        run(servers, tmp_path, f"evaluate.judge.against=file://{tmp_path}/nothing", "evaluate.endpoint_model=tuned")


def test_a_judge_that_gives_no_grade(servers: Any, tmp_path: Path) -> None:
    servers[1].write = lambda text: "좋습니다"
    uri = run(servers, tmp_path)
    scores = json.loads(storage.read_text(f"{uri}/scores.json"))["judge"]["logickor"]
    assert (scores["n"], scores["unjudged"]) == (0, 3) and "score" not in scores


def test_questions_without_a_judge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="questions need an `endpoint`"):
        loading.load(None, [f"root={tmp_path}", "evaluate.judge.questions=[q.jsonl]"])
