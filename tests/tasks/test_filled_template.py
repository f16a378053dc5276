"""The order of options, and the answer alone beside its phrasing."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.tasks.filled_template import fill, shown_order
from kit19_ray.tasks.task import DEFINITIONS, Task, load_task, load_tasks

TASKS = load_tasks()


def changed(tmp_path: Path, name: str, **first: Any) -> Task:
    """A task of ours with other values in its first template."""
    tree = yaml.safe_load((DEFINITIONS / f"{name}.yaml").read_text(encoding="utf-8"))
    tree["templates"][0].update(first)
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return load_task(path)


COPA = {"premise": "비가 왔다.", "question": "결과", "alternative_1": "길이 젖었다.", "alternative_2": "별이 떴다."}


@pytest.mark.parametrize("label", ["1", "2"])
def test_the_number_said_is_the_number_shown(tmp_path: Path, label: str) -> None:
    """Whatever the order, the answer's number stands before the right text in the prompt."""
    ask = {"instruction": "고르시오.\n{{ choices | numbered }}", "outputs": ["{{ number }}번이다."]}
    task = changed(tmp_path, "kobest_copa", **ask)
    template = task.spec.templates[0]
    numbers: Counter[str] = Counter()
    for i in range(200):
        made = fill(task, template, COPA | {"label": label}, str(i), 19)
        number = made.output.removesuffix("번이다.")
        assert f"{number}. {COPA[f'alternative_{label}']}" in made.instruction
        assert made.answer == COPA[f"alternative_{label}"]
        assert (made.label, made.answer_type) == (int(label) - 1, "choice")
        assert sorted(made.candidates) == ["1번이다.", "2번이다."]
        assert made.candidates[made.label] == made.output
        numbers[number] += 1
    assert min(numbers.values()) > 70


def test_every_order_of_three_options_is_drawn_alike() -> None:
    task = TASKS["kornli"]
    orders = Counter(tuple(shown_order(task, task.spec.templates[0], str(i), 19)) for i in range(1200))
    assert len(orders) == math.factorial(3)
    assert min(orders.values()) > 150


def test_a_scale_stands_forward_or_backward_or_as_it_is(tmp_path: Path) -> None:
    for order, wanted in (("either_way", {(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0)}), ("fixed", {(0, 1, 2, 3, 4, 5)})):
        task = changed(tmp_path, "korsts", order=order)
        assert {tuple(shown_order(task, task.spec.templates[0], str(i), 19)) for i in range(50)} == wanted


def test_a_free_answer_stands_alone_beside_its_phrasing(tmp_path: Path) -> None:
    said = {"outputs": ["이 문제의 답은 {{ answer }}입니다."], "answer": "{{ answer }}", "answer_type": "number"}
    task = changed(tmp_path, "math_korean", **said)
    made = fill(task, task.spec.templates[0], {"problem": "3+4?", "code": "print(7)", "answer": "7"}, "a", 19)
    assert (made.output, made.answer, made.answer_type) == ("이 문제의 답은 7입니다.", "7", "number")
    assert (made.label, made.candidates) == (-1, [])


def test_a_task_that_does_not_say_its_answer_has_none(tmp_path: Path) -> None:
    task = changed(tmp_path, "math_korean", answer=None)
    made = fill(task, task.spec.templates[0], {"problem": "3+4?", "code": "print(7)", "answer": "7"}, "a", 19)
    assert (made.answer, made.answer_type) == (None, None)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_each_free_answer_of_ours_is_known_alone(name: str) -> None:
    for template in TASKS[name].spec.templates:
        if template.generation or not TASKS[name].spec.answer:
            assert template.answer, template.name
