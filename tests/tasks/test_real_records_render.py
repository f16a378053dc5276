"""Every template on the first records of every real file: what people wrote finds what our samples do not hold."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from kit19_ray.data.examples import Planned, render
from kit19_ray.data.records import Record, to_record
from kit19_ray.errors import SourceError
from kit19_ray.sources.files import locate
from kit19_ray.sources.readers.base import LocatedFile, SourceRow
from kit19_ray.tasks.task import Task, load_tasks

from .conftest import left_behind

pytestmark = pytest.mark.real_data
TASKS = load_tasks()
PER_FILE = 300


def files(task: Task, base: Path) -> list[LocatedFile]:
    """The files of every split that is there in full."""
    found = []
    for split in task.source.splits():
        try:
            found += locate(task.source_id, task.source, str(base), [split])
        except SourceError:
            continue  # not every source may be passed on, so some have no file here
    return found


def records(task: Task, file: LocatedFile) -> list[Record]:
    raws = islice((r for r in task.source.read(file) if isinstance(r, SourceRow)), PER_FILE)
    return [r for r in (to_record(task, file.path, raw) for raw in raws) if isinstance(r, Record)]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_template_renders_on_real_records(name: str, shared_sources: Path) -> None:
    task = TASKS[name]
    located = files(task, shared_sources)
    if not located:
        pytest.skip(f"{task.source_id} has no file here")
    for file in located:
        held = records(task, file)
        assert held, file.path
        for record in held:
            for template in task.spec.templates:
                if not template.applies(record.fields):
                    continue
                row = render(task, Planned(record, template, 0), "train", 19)
                where = f"{template.name} on {record.place}"
                assert row["output"].strip(), where
                for text in (row["instruction"], row["input"], row["output"], *row["candidates"]):
                    assert left_behind(text, record.fields.values()) is None, where
                if template.kind == "closed" and not template.generation:
                    prompt = f"{row['instruction']}\n{row['input']}"
                    assert all(word in prompt for word in task.choice_words(template, record.fields)), where
                if not row["candidates"]:
                    continue
                # Choices of the record's own may be the same text twice; words of ours never are.
                distinct = (
                    set(task.choice_words(template, record.fields)) if task.spec.choice_fields else set(task.labels)
                )
                assert len(set(row["candidates"])) == len(distinct), where
                assert row["candidates"][row["label"]] == row["output"], where
