"""Answers looked at, whatever the phrasing; and an oracle that knows them all, in every template's own words."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from kit19_ray.evaluate import answers
from kit19_ray.sources.files import SAMPLES
from kit19_ray.tasks import filled_template, templates
from kit19_ray.tasks.task import Task, load_tasks
from tests.evaluate.oracle import records


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("이 문제의 답은 18입니다.", 18),
        ("답은 18!", 18),
        ("3명이 4개씩이면 12개, 답: 1,200원", 1200),
        ("1번 정답: -3.50", Fraction(-7, 2)),
        ("1/2이다", Fraction(1, 2)),
        ("print(7 * 6)\n# 42", 42),
        ("모르겠어요", None),
        ("1/0", None),
    ],
)
def test_the_last_number(text: str, number: Fraction | None) -> None:
    assert answers.last_number(text) == number


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("긍정", 0),
        (" 부정. ", 1),
        ("이 평은 '긍정'입니다.", 0),
        ("2번", 1),
        ("(1)", 0),
        ("긍정도 부정도 아니다", 0),
        ("아마 긍정이나 부정", None),
        ("모르겠다", None),
        ("3", None),
    ],
)
def test_the_choice_a_text_names(said: str, choice: int | None) -> None:
    assert answers.pick_choice(said, ["긍정", "부정"]) == choice


def test_the_longer_of_two_choices_within_each_other_is_meant() -> None:
    assert answers.pick_choice("두 문장은 뜻이 같지 않음", ["같지", "뜻이 같지 않음"]) == 1


def test_figures_by_type() -> None:
    assert answers.compare("답: 18", "18.0", "number", True) == {"exact_match": 1.0}
    assert answers.compare("답: 19", "18", "number", True) == {"exact_match": 0.0}
    found = answers.compare("핵심 논항: 빨래 완료 여부", "빨래 완료 여부", "phrase", True)
    assert found == {"exact_match": 1.0, "chrf": 100.0}
    assert answers.compare("빨래", "빨래 완료 여부", "phrase", True)["exact_match"] == 0
    two = answers.compare("여성과 남성을 향한 말이다.", "여성,지역", "set", True, ["여성", "남성", "지역"])
    assert two == {"exact_match": 0.0, "set_f1": 0.5}
    assert answers.compare("없다", "여성", "set", True)["set_f1"] == 0.0
    spoken = answers.compare("특정 인종이나 국적, 그 밖의 집단", "인종/국적, 기타 혐오", "set", True)
    assert spoken == {"exact_match": 1.0, "set_f1": 1.0}
    assert answers.compare("답은 빵집이야.", "빵집", "number", True) == {"exact_match": 1.0}
    assert answers.compare("분야: 교육\n제목: 급식", "교육, 급식", "text", True)["exact_match"] == 1.0
    assert answers.compare("제목: 급식, 분야: 교육", "교육, 급식", "text", True)["exact_match"] == 0.0


def test_a_long_text_around_an_answer_is_no_phrasing() -> None:
    around = "서론이 이어진다. " * 12
    assert answers.compare(f"{around}결론", "결론", "phrase", True)["exact_match"] == 0.0
    assert answers.compare(f"{around}결론", "결론", "text", True)["chrf"] < 50


def test_a_cut_answer_is_compared_with_as_much_of_the_reference() -> None:
    reference = "수학은 수와 양과 공간을 다루는 학문이다. 그 역사는 길고, 쓰이는 곳은 셀 수 없이 많다."
    cut = reference[:20]
    assert answers.compare(cut, reference, "text", False) == {"exact_match": 1.0, "chrf": 100.0, "rouge_l": 1.0}
    assert answers.compare(cut, reference, "text", True)["chrf"] < 70
    assert answers.compare("", reference, "text", False)["rouge_l"] == 1.0  # nothing decoded, nothing compared


def test_rouge_l_is_the_librarys_over_letters() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Letters:
        def tokenize(self, text: str) -> list[str]:
            return list(answers.letters(text))

    said, reference = "오늘은 비가 많이 왔어요.", "어제는 비가 조금 왔다"
    expected = RougeScorer(["rougeL"], tokenizer=Letters()).score(reference, said)["rougeL"].fmeasure
    assert answers.rouge_l(said, reference) == pytest.approx(expected)
    assert answers.rouge_l("...", "...") == 1.0 and answers.rouge_l("", "비") == 0.0


def every_phrasing() -> list[tuple[Task, str]]:
    return [(task, template.name) for task in load_tasks().values() for template in task.spec.templates]


@pytest.mark.parametrize(
    ("task", "name"), every_phrasing(), ids=lambda value: value if isinstance(value, str) else value.name
)
def test_an_oracle_is_right_in_every_phrasing(task: Task, name: str) -> None:
    """It knows the answer and says it in each of the template's own ways."""
    (template,) = [t for t in task.spec.templates if t.name == name]
    fitting = [fields for fields in records(task, Path(SAMPLES)) if template.applies(fields)]
    assert fitting, "the samples hold a record for every template"
    names = {n for fields in fitting for n in fields.get("targets", "").split(",")}
    for number, fields in enumerate(fitting):
        variants = [template.model_copy(update={"outputs": [output]}) for output in template.outputs]
        shown = [filled_template.fill(task, variant, fields, f"r{number}", 1) for variant in variants]
        for said in shown:
            if said.candidates:
                # Whatever the phrasing, the right candidate is told from the others by the words of the label.
                words = task.choice_words(
                    template, {k: templates.truncate_sentences(v, 10**6) for k, v in fields.items()}
                )
                exact = answers.pick_choice(said.output, said.candidates)
                assert exact == said.label or answers.pick_choice(said.output, words) == said.label, said.output
            else:
                assert said.answer is not None and said.answer_type is not None
                found = answers.compare(said.output, said.answer, said.answer_type, True, names)
                assert found["exact_match"] == 1.0, (said.answer, said.output)
