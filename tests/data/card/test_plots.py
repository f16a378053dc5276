from __future__ import annotations

import struct
import subprocess
import sys
from collections import Counter
from typing import Any

import matplotlib
import pytest

from kit19_ray.data.card import plots
from kit19_ray.data.card.statistics import distribution


def split(tokens: bool, labels: dict[str, int], templates: int) -> dict[str, Any]:
    lengths = distribution(Counter([3, 9, 9, 40, 200]))
    used = {f"t{i}": {"kind": "open" if i % 2 else "closed", "examples": 3 * i} for i in range(templates)}
    parts = {"prompt_characters": lengths, "answer_characters": lengths, "tokens": lengths if tokens else None}
    return {"examples": sum(labels.values()), "labels": labels, "templates": used, **parts}


def statistics(tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    packed = {"rows": 4, "examples": 9, "learned": 20, "masked": 60, "padding": 8, "efficiency": 0.91}
    empty = dict.fromkeys(packed, 0)
    return {"seq_len": 128, "packing": {"train": packed, "validation": empty}, "tasks": tasks}


def task(
    tokens: bool = True, labels: dict[str, int] | None = None, drops: int = 3, templates: int = 10
) -> dict[str, Any]:
    found = split(tokens, labels if labels is not None else {"yes": 5, "no": 3, "free_answer": 2}, templates)
    source = {"rows": 100, "unique": 60, "repeats": 9, "dropped": {f"reason_{i}": i for i in range(drops)}}
    return {"category": "math", "train": found, "validation": found, "source": source | {"tokens": 80}}


TWENTY = statistics({f"task_number_{i}": task() for i in range(20)})


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.slow
def test_twenty_tasks_give_six_plots_of_a_readable_size() -> None:
    drawn = plots.draw(TWENTY)
    assert set(drawn) == {f"{n}.png" for n in ("tokens", "characters", "labels", "templates", "packing", "drops")}
    for name, png in drawn.items():
        width, height = size(png)
        assert width == 900 and 500 < height < 900, name


@pytest.mark.slow
def test_the_bytes_depend_on_the_numbers_alone() -> None:
    first = plots.draw(TWENTY)
    assert plots.draw(TWENTY) == first
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert plots.draw(TWENTY) == first
    assert not any(b"Matplotlib" in png or b"tIME" in png for png in first.values())
    other = statistics({**TWENTY["tasks"], "task_number_3": task(labels={"yes": 8, "no": 0})})
    assert plots.draw(other)["labels.png"] != first["labels.png"]


def test_without_token_counts_there_is_no_plot_of_them() -> None:
    assert "tokens.png" not in plots.draw(statistics({"one": task(tokens=False)}))


@pytest.mark.parametrize(
    "tasks",
    [
        {"한국어_과제": task(labels={"긍정": 1, "부정": 2})},
        {"many_reasons": task(drops=30), "few": task(templates=2)},
        {"nothing": task(labels={"yes": 0}, drops=0, templates=1)},
        {"empty": task() | {"train": {**split(False, {}, 1), "prompt_characters": None, "answer_characters": None}}},
    ],
    ids=["other letters", "more reasons than colours", "no examples", "no rows"],
)
def test_unusual_tasks_are_drawn_without_a_warning(tasks: dict[str, Any]) -> None:
    assert all(size(png)[0] == 900 for png in plots.draw(statistics(tasks)).values())


def test_matplotlib_is_loaded_by_drawing_only_and_without_pyplot() -> None:
    code = (
        "import sys\nfrom kit19_ray.data.card import plots\nassert 'matplotlib' not in sys.modules\n"
        f"plots.draw({statistics({'one': task()})!r})\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
