"""Who knows every answer scores 100 % on every held-out task, in whatever words; a constant answer, its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.config.schema import EvaluateConfig
from kit19_ray.evaluate import held_out, held_out_scores
from kit19_ray.evaluate.endpoint import END, CharacterTokenizer
from kit19_ray.lm.decoding import DecodedText
from kit19_ray.lm.prompts import PROMPTS
from kit19_ray.sources.files import SAMPLES
from kit19_ray.tasks.filled_template import fill
from kit19_ray.tasks.task import Task, load_tasks
from tests.evaluate.oracle import records

LETTERS = CharacterTokenizer(False)
TASKS = load_tasks()


def rows(task: Task) -> tuple[list[held_out.HeldOutRow], dict[str, str]]:
    """Rows of every template, and by prompt the answer in another of the template's phrasings than the row's own."""
    found: list[held_out.HeldOutRow] = []
    said: dict[str, str] = {}
    for number, fields in enumerate(records(task, Path(SAMPLES))[:8]):
        for template in task.spec.templates:
            if not template.applies(fields):
                continue
            made = fill(task, template, fields, f"r{number}", 1)
            others = [
                fill(task, template.model_copy(update={"outputs": [text]}), fields, f"r{number}", 1).output
                for text in template.outputs
            ]
            prompt = PROMPTS["kullm"].render(made.instruction, made.input)
            said[prompt] = next((other for other in others if other != made.output), made.output)
            found.append({
                "id": f"{number}-{template.name}", "task": task.name, "template": template.name, "kind": template.kind,
                "instruction": made.instruction, "input": made.input, "output": made.output, "label": made.label,
                "candidates": made.candidates, "order": len(found), "answer": made.answer,
                "answer_type": made.answer_type,
            })  # fmt: skip
    return found, said


class Knowing:
    """A backend that finds the candidate of one label the likeliest, and writes what it knows."""

    can_score = True

    def __init__(self, wanted: set[tuple[str, str]], said: dict[str, str]) -> None:
        self.wanted, self.said = wanted, said

    def loglikelihoods(self, requests: Any, what: str, on_results: Any = None) -> list[tuple[float, bool]]:
        texts = [(LETTERS.decode(prompt), LETTERS.decode(answer[:-1])) for prompt, answer in requests]
        return [(0.0 if pair in self.wanted else -50.0, False) for pair in texts]

    def generate(
        self, prompts: Sequence[list[int]], options: dict[str, Any], what: str, on_results: Any = None
    ) -> list[DecodedText]:
        return [DecodedText(text=self.said[LETTERS.decode(prompt)], finish_reason="stop") for prompt in prompts]


def scored(found: list[held_out.HeldOutRow], said: dict[str, str], label: int | None) -> dict[str, Any]:
    """Scores of a backend that answers with this label, or with each row's own."""
    wanted = {
        (
            PROMPTS["kullm"].render(row["instruction"], row["input"]),
            row["candidates"][row["label"] if label is None else label],
        )
        for row in found
        if row["candidates"]
    }
    reader = held_out.Reader(lambda texts: LETTERS(texts)["input_ids"], LETTERS.decode, PROMPTS["kullm"], END, 1 << 20)
    config = EvaluateConfig(generation_limit=1000, max_tokens=10_000)
    samples = held_out.ask(found, reader, Knowing(wanted, said), config)
    assert len(samples) == len(found)
    return held_out_scores.summarize(found[0]["task"], samples)[0]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_an_oracle_scores_everything(task: Task) -> None:
    found, said = rows(task)
    scores = scored(found, said, None)
    if any(row["candidates"] for row in found):
        assert scores["accuracy"] == 1.0 and scores["macro_f1"] == 1.0
    if not all(row["candidates"] for row in found):
        assert scores["generation"]["exact_match"] == 1.0
        assert {part["exact_match"] for part in scores["generation"]["by_template"].values()} == {1.0}


@pytest.mark.parametrize("task", [t for t in TASKS.values() if t.labels], ids=lambda task: task.name)
def test_a_majority_guesser_scores_the_majority(task: Task) -> None:
    found, said = rows(task)
    labels = Counter(row["label"] for row in found if row["candidates"])
    ((label, count),) = labels.most_common(1)
    scores = scored(found, said, label)
    assert scores["accuracy"] == scores["majority"] == count / labels.total()
    assert scores["above_majority"] == 0.0
