"""Record x template -> the texts of an example, and the answer alone, by which evaluation looks at what was said.

Options stand in an order drawn by hash of the record's id, so that no label has a place of its own; `label` and
`candidates` stay in the task's order of labels, whatever the prompt shows:

    labels       positive, negative                      shown   1. 부정  2. 긍정
    candidates   ["이 평은 긍정이다.", "이 평은 부정이다."]   label 0   answer 긍정   (its `number` is 2)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit19_ray.tasks import templates
from kit19_ray.tasks.task import Task, Template
from kit19_ray.utils.hashing import hash64

TemplateValues = dict[str, Any]
"""What a template's text may name: the task's own fields, and beside them choices, label, choice and number."""


@dataclass(frozen=True)
class FilledTemplate:
    """What a template makes of a record.

    Attributes:
        label: index of the gold label in the task's order; -1 for an answer that is no choice.
        candidates: the output as each label would have it, in the task's order; empty when `label` is -1.
        answer: the answer alone, without the phrasing around it; None when the template does not say.
        answer_type: how answers are compared, see `Template.answer_type`; None when `answer` is.
    """

    instruction: str
    input: str
    output: str
    label: int
    candidates: list[str]
    answer: str | None
    answer_type: str | None


def shown_order(task: Task, template: Template, record_id: str, seed: int) -> list[int]:
    """Indices of the labels in the order in which the prompt lists them."""
    order = list(range(len(task.labels)))
    if template.order == "shuffled":
        order.sort(key=lambda i: hash64(seed, "options", record_id, template.name, task.labels[i]))
    elif template.order == "either_way" and hash64(seed, "options", record_id, template.name) % 2:
        order.reverse()
    return order


def fill(task: Task, template: Template, fields: Mapping[str, str], record_id: str, seed: int) -> FilledTemplate:
    """Fills in a template; its phrasing and the order of its options follow from the hash of seed and record."""
    spec = task.spec
    cut = {
        name: templates.truncate_sentences(text, spec.limits[name]) if name in spec.limits else text
        for name, text in fields.items()
    }
    for name, said in spec.spoken.items():
        cut[f"{name}_said"] = ", ".join(said.get(word, word) for word in cut[name].split(", "))
    words = task.choice_words(template, cut)
    order = shown_order(task, template, record_id, seed)
    asked: TemplateValues = {**cut, "choices": [words[i] for i in order]}
    phrasing = template.outputs[hash64(seed, "output", record_id, template.name) % len(template.outputs)]

    def answered(value: str) -> TemplateValues:
        if value not in task.labels:
            return {**asked, "label": value, "choice": "", "number": 0}
        at = task.labels.index(value)
        number = order.index(at) + 1
        return {**asked, str(spec.answer): value, "label": value, "choice": words[at], "number": number}

    gold = answered(cut[spec.answer] if spec.answer else "")
    label, candidates = -1, []
    if spec.answer is not None and not template.generation:
        label = task.labels.index(cut[spec.answer])
        candidates = [templates.render(phrasing, answered(value)) for value in task.labels]
        answer: str | None = words[label]
        answer_type: str | None = "choice"
    else:
        answer = templates.render(template.answer, gold) if template.answer is not None else None
        answer_type = template.answer_type if template.answer is not None else None
    return FilledTemplate(
        instruction=templates.render(template.instruction, asked),
        input=templates.render(template.input, asked),
        output=candidates[label] if candidates else templates.render(phrasing, gold),
        label=label,
        candidates=candidates,
        answer=answer,
        answer_type=answer_type,
    )
