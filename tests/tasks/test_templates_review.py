"""docs/reference/templates.md is what its generator prints: a template cannot change without its example."""

from __future__ import annotations

import runpy
from pathlib import Path

from kit19_ray.tasks.task import load_tasks

REPOSITORY = Path(__file__).parents[2]


def test_the_review_file_is_up_to_date() -> None:
    script = runpy.run_path(str(REPOSITORY / "scripts" / "templates_review.py"))
    text = "".join(script["review"]())
    for task in load_tasks().values():
        assert f"\n## {task.name}\n" in text
        for number, template in enumerate(task.spec.templates, 1):
            assert f"\n### {number}. {template.name} ({template.kind})\n" in text
    written = (REPOSITORY / "docs" / "reference" / "templates.md").read_text(encoding="utf-8")
    assert written == text, "run `python scripts/templates_review.py > docs/reference/templates.md`"
