"""The suite `korean` to its end, on rows of ours in the form of each data set: the hub is not asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import harness
from kit19_ray.evaluate.evaluation import Evaluation
from kit19_ray.lm import pretrained
from kit19_ray.lm.decoding import DecodedText

_LETTERS = {letter: f"보기 {letter}" for letter in "ABCDE"}
_KINDS = (
    *("economy_0", "geography_0", "history_0", "law_0", "politics_0", "popular_0", "society_0", "tradition_0"),
    *("CSAT_korean_22_40", "CSAT_korean_20_12", "TK_1", "TK_5", "Kedu_1_2", "PSE_korean_1"),
)

# The columns of each data set; the right answer is the first choice, where there are letters.
ROWS: dict[str, list[dict[str, Any]]] = {
    "HAERAE-HUB/HAE_RAE_BENCH": [{"query": "질문: 탈춤은?\n정답:", "options": "", "answer": "(A)"}],
    "HAERAE-HUB/KMMLU": [{"question": f"{n} 더하기 1은?", **_LETTERS, "answer": 1} for n in range(6)],
    "EunsuKim/CLIcK": [
        {
            "id": kind, "paragraph": "", "question": "이 말의 뜻은?", "answer": "보기 A",
            "choices": list(_LETTERS.values())[: 5 if "CSAT" in kind else 4],
        }
        for kind in _KINDS
    ],
    "HAERAE-HUB/csatqa": [
        {"context": "글", "question": "주제는?", "gold": "1", **{f"option#{n}": f"{n}번" for n in range(1, 6)}}
    ],
    "sean0042/KorMedMCQA": [{"question": f"{n}번 환자의 진단은?", **_LETTERS, "answer": 1} for n in range(6)],
    "facebook/belebele": [
        {
            "flores_passage": "글", "question": "누구인가?", "correct_answer_num": "1",
            **{f"mc_answer{n}": f"{n}번" for n in range(1, 5)},
        }
    ],
    "CohereForAI/Global-MMLU-Lite": [
        {
            "subject_category": kind, "question": "맞는 것은?", "answer": "A",
            **{f"option_{letter.lower()}": text for letter, text in _LETTERS.items()},
        }
        for kind in ("Business", "Humanities", "Medical", "Other", "STEM", "Social Sciences")
    ],
    "HAERAE-HUB/HRM8K": [{"question": "3 곱하기 4는?", "answer": 12.0}],
    "google-research-datasets/paws-x": [{"sentence1": "비가 온다.", "sentence2": "비가 내린다.", "label": 1}],
}  # fmt: skip
KOBEST: dict[str, dict[str, Any]] = {
    "boolq": {"paragraph": "가야금은 열두 줄이다.", "question": "가야금은 열두 줄인가?", "label": 1},
    "copa": {"premise": "비가 왔다.", "question": "결과", "alternative_1": "젖다", "alternative_2": "타다", "label": 0},
    "hellaswag": {"context": "물을 붓는다.", **{f"ending_{n}": f"{n}번 끝" for n in range(1, 5)}, "label": 0},
    "sentineg": {"sentence": "맛있다.", "label": 1},
    "wic": {"word": "배", "context_1": "[배]가 뜬다.", "context_2": "[배]를 먹는다.", "label": 0},
}  # fmt: skip


class Answering:
    """Finds the first of equal continuations the likeliest, and writes one sentence."""

    can_score = True

    def __init__(self) -> None:
        self.room: set[int] = set()

    def loglikelihoods(self, requests: Sequence[Any], what: str, on_results: Any = None) -> list[tuple[float, bool]]:
        found = [(-float(n), False) for n in range(len(requests))]
        if on_results is not None:
            on_results(list(range(len(found))), found)
        return found

    def generate(self, prompts: Sequence[Any], options: Any, what: str, on_results: Any = None) -> list[DecodedText]:
        self.room |= {len(prompt) + options["max_tokens"] for prompt in prompts}
        found = [DecodedText(text="정답: A 그리고 $\\boxed{12}$", finish_reason="stop") for _ in prompts]
        if on_results is not None:
            on_results(list(range(len(found))), found)
        return found


def load_dataset(path: str, name: str | None = None, **_: Any) -> Any:
    """What `datasets.load_dataset` gives, of the rows above, the same in every split."""
    import datasets

    rows = [KOBEST[str(name)]] * 3 if path == "skt/kobest_v1" else ROWS[path]
    splits = ("train", "validation", "dev", "test", "fewshot")
    return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split in splits})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.load_dataset", load_dataset)


@pytest.mark.slow
def test_the_korean_suite_to_its_end(hub: None, tiny_model: Path, configured: Any, tmp_path: Path) -> None:
    from kit19_ray.evaluate.ray_lm import RayLM

    config = configured("evaluate.tasks=[korean]", "evaluate.source=hub", "evaluate.limit=1")
    asked = harness.names(config)
    backend, context = Answering(), 1024
    evaluation = Evaluation(
        config, RayLM(backend, pretrained.load_tokenizer(str(tiny_model)), context), f"file://{tmp_path}"
    )
    evaluation.harness(asked)
    scores = evaluation.tasks
    families = (
        "kobest_",
        "haerae_",
        "kmmlu_",
        "click_",
        "csatqa_",
        "kormedmcqa_",
        "belebele_kor",
        "global_mmlu_ko_",
        "hrm8k_",
        "paws_ko",
    )
    found = {family: [task for task in scores if task.startswith(family)] for family in families}
    assert {family: len(tasks) for family, tasks in found.items()} == {
        "kobest_": 5, "haerae_": 5, "kmmlu_": 45, "click_": 11, "csatqa_": 6, "kormedmcqa_": 4, "belebele_kor": 1,
        "global_mmlu_ko_": 6, "hrm8k_": 5, "paws_ko": 1,
    }  # fmt: skip
    assert {name for name in scores if scores[name]["n"] != 1} == set()
    letters = [task for family in ("kmmlu_", "click_", "csatqa_", "belebele_kor") for task in found[family]]
    assert {task: scores[task]["acc"] for task in letters} == dict.fromkeys(letters, 1.0)
    written = [*found["kormedmcqa_"], *found["hrm8k_"]]
    assert all(1.0 in scores[task].values() for task in written), {task: scores[task] for task in written}
    groups = {"haerae", "kmmlu", "click", "csatqa", "kormedmcqa", "global_mmlu_ko"}
    assert set(evaluation.groups) >= groups, evaluation.groups.keys()
    assert evaluation.groups["kmmlu"]["n"] == 45 and evaluation.groups["kmmlu"]["acc"] == 1.0
    # hrm8k asks for 2,048 tokens, which this model has no room for.
    assert max(backend.room) <= context


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(path: str, **_: Any) -> Any:
        raise ConnectionError(f"Couldn't reach '{path}' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    config = configured("evaluate.tasks=[haerae]", "evaluate.source=hub")
    with pytest.raises(EvaluateError, match="haerae: Couldn't reach 'HAERAE-HUB/HAE_RAE_BENCH' on the Hub") as caught:
        harness.load(config, harness.names(config))
    assert "HF_HUB_OFFLINE" in caught.value.hint
