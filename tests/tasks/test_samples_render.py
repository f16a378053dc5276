"""Every template on every sample record: it renders, tells labels apart, and an open one does not give itself away."""

from __future__ import annotations

import pytest

from kit19_ray.data.examples import Planned, render
from kit19_ray.data.inspect.describe_task import sample_records
from kit19_ray.tasks.task import load_tasks
from kit19_ray.tasks.templates import undeclared

from .conftest import left_behind

TASKS = load_tasks()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_template_renders_on_every_sample(name: str) -> None:
    task = TASKS[name]
    held = sample_records(task)
    assert len(held) >= 32
    used = set()
    for record in held:
        prompts = set()
        for template in task.spec.templates:
            if not template.applies(record.fields):
                continue
            used.add(template.name)
            row = render(task, Planned(record, template, 0), "train", 19)
            prompt = f"{row['instruction']}\n{row['input']}"
            assert row["output"].strip()
            for text in (row["instruction"], row["input"], row["output"], *row["candidates"]):
                assert left_behind(text, record.fields.values()) is None, f"{template.name}: {text}"
            assert prompt not in prompts, f"{template.name} renders as another template does: {prompt}"
            prompts.add(prompt)
            assert len(set(row["candidates"])) == len(row["candidates"]), template.name
            if row["candidates"]:
                assert row["candidates"][row["label"]] == row["output"]
            elif template.kind == "open":
                asked = undeclared(template.instruction) | undeclared(template.input)
                shown = " ".join(record.fields[n] for n in asked if n in record.fields)
                answers = set().union(*map(undeclared, template.outputs)) & set(record.fields) - asked
                for field in answers:
                    answer = record.fields[field]
                    assert answer in shown or answer not in prompt, f"{template.name} tells {field}: {prompt}"
    assert used == {t.name for t in task.spec.templates}


@pytest.mark.parametrize("name", sorted(n for n, t in TASKS.items() if t.spec.answer))
def test_the_samples_show_every_label(name: str) -> None:
    answer = TASKS[name].spec.answer
    assert answer is not None
    assert {r.fields[answer] for r in sample_records(TASKS[name])} == set(TASKS[name].labels)
