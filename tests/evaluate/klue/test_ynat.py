"""The harness on our task file of YNAT, with our model class and with its own; prompts and macro-F1 by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.evaluate import harness, harness_scores
from tests.evaluate.test_ray_lm import compare, run

pytestmark = pytest.mark.ray

# Rows of our own in the form of KLUE's file, whose own are not at hand: of some categories more than of others.
HEADLINES = [
    ("새 운영체제 공개…앱 여는 시간 절반으로", "IT과학"),
    ("두부 한 모 값 석 달 만에 내렸다", "경제"),
    ("마을버스 기사 모자라 첫차 늦춘다", "사회"),
    ("가을 산책길에 들고 갈 도시락 세 가지", "생활문화"),
    ("강 하나 사이 두 나라, 다리 놓기로", "세계"),
    ("연장 끝에 웃은 막내 팀…4연승", "스포츠"),
    ("예산안 심사 시작…여야 첫날부터 맞서", "정치"),
    ("달 뒷면 사진 보낸 소형 위성", "IT과학"),
    ("환율 사흘째 올라…수출 기업 셈법 복잡", "경제"),
    ("밤새 내린 눈에 등굣길 미끄럼 사고", "사회"),
    ("헌책방 골목에 다시 모이는 손님들", "생활문화"),
    ("산불 번진 섬나라, 주민 대피령", "세계"),
    ("마라톤 신인, 비 맞으며 대회 기록", "스포츠"),
    ("장관 후보 청문회 다음 주로 미뤄", "정치"),
    ("동네 빵집 밀가루 공동 구매 늘어", "경제"),
    ("전세 계약 갱신 두 집에 한 집꼴", "경제"),
    ("후반 교체 선수 두 골로 역전승", "스포츠"),
]
CHOICES = ["과학", "경제", "사회", "생활", "세계", "스포츠", "정치"]  # as the harness's branch `polyglot` has them


def ynat(folder: Path) -> str:
    """A sources folder with YNAT's two files: what is scored, and where solved examples come from."""
    place = folder / "eval" / "klue"
    place.mkdir(parents=True)
    for split, rows in (("dev", HEADLINES), ("train", HEADLINES[::-1])):
        made = [
            {
                "guid": f"ynat-v1_{split}_{number:05}",
                "title": title,
                "predefined_news_category": label,
                "label": label,
                "annotations": {"annotators": ["01", "02", "03"], "annotations": {"first-scope": [label] * 3}},
                "url": "https://example.org/news",
                "date": "2026.01.02. 오전 9:00",
            }
            for number, (title, label) in enumerate(rows)
        ]
        (place / f"ynat-v1.1_{split}.json").write_text(json.dumps(made, ensure_ascii=False), "utf-8")
    return str(folder)


@pytest.mark.parametrize("shots", [0, 2])
def test_scores_of_ynat_are_the_harness_own(shots: int, lm: Any, hf: Any, configured: Any, tmp_path: Path) -> None:
    words = [f"data.sources={ynat(tmp_path / 'sources')}", "data.verify=false", f"evaluate.num_fewshot={shots}"]
    config = configured(*words, "evaluate.tasks=[klue_ynat]")
    theirs = run(hf, config, ["klue_ynat"], shots)
    compare(run(lm, config, ["klue_ynat"], shots), theirs)
    for (title, label), sample in zip(HEADLINES, theirs["samples"]["klue_ynat"], strict=True):
        prompt = f"질문: 다음의 제목을 가지는 뉴스는 어느 분야의 뉴스인가요?\n제목: {title}\n분야:"
        assert all(context.endswith(prompt) for context, _ in sample["arguments"])
        assert [choice for _, choice in sample["arguments"]] == [f" {choice}" for choice in CHOICES]
        assert sample["arguments"][0][0].count("질문: ") == shots + 1
        assert sample["target"] == CHOICES.index({"IT과학": "과학", "생활문화": "생활"}.get(label, label))
    (task,) = harness.load(config, ["klue_ynat"]).tasks.values()
    entry, _ = harness_scores.entry(harness.evaluate(lm, task, shots, config.evaluate), task, shots)
    assert entry["n"] == len(HEADLINES)
    assert entry["macro_f1"] == theirs["results"]["klue_ynat"]["f1,none"]
    assert entry["macro_f1"] == pytest.approx(by_hand(theirs["samples"]["klue_ynat"]))


def by_hand(samples: list[dict[str, Any]]) -> float:
    """Macro-F1 from the log-likelihoods, over the categories that are right or picked at least once."""
    pairs = []
    for sample in samples:
        values = [value for value, _ in sample["filtered_resps"]]
        pairs.append((sample["target"], values.index(max(values))))
    f1s = []
    for field in {place for pair in pairs for place in pair}:
        right = sum(pair == (field, field) for pair in pairs)
        f1s.append(2 * right / sum((gold == field) + (picked == field) for gold, picked in pairs))
    return sum(f1s) / len(f1s)
