from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config
from kit19_ray.data.card import statistics
from kit19_ray.data.inputs import collect
from kit19_ray.io import storage
from kit19_ray.tasks.task import load_tasks

TASK = load_tasks(["nsmc"])["nsmc"]


SCHEMA = pa.schema([*((n, pa.string()) for n in ("instruction", "input", "output", "template")), ("label", pa.int32())])


def batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def row(**other: Any) -> dict[str, Any]:
    return {"instruction": "물음", "input": "", "output": "답", "template": "feeling_open", "label": 1} | other


def test_rows_are_counted_over_all_batches() -> None:
    rows = [row(), row(input="가나다", label=0), row(output="긴 대답입니다", label=-1, template="how_rated")]
    found = statistics.measure([batch(rows[:1]), batch(rows[1:])], TASK)
    assert found["examples"] == 3
    assert found["labels"] == {"positive": 1, "negative": 1, "free_answer": 1}
    assert found["prompt_characters"]["histogram"] == {"2": 2, "6": 1}
    assert (found["answer_characters"]["min"], found["answer_characters"]["max"]) == (1, 7)
    assert found["templates"]["feeling_open"] == {"kind": "open", "examples": 2}
    assert found["templates"]["polarity_question"] == {"kind": "closed", "examples": 0}
    assert len(found["templates"]) == 10
    assert found["tokens"] is None


def test_tokens_are_counted_where_the_build_wrote_them_and_0_is_left_out() -> None:
    counted = batch([row(), row(), row()]).append_column("num_tokens", pa.array([0, 9, 11], pa.int32()))
    found = statistics.measure([counted], TASK)["tokens"]
    assert (found["count"], found["mean"], found["max"], found["histogram"]) == (2, 10, 11, {"11": 2})


def test_a_task_without_rows_has_no_lengths() -> None:
    found = statistics.measure([], TASK)
    assert found["examples"] == 0 and found["prompt_characters"] is None
    assert found["labels"] == {"positive": 0, "negative": 0}
    free = load_tasks(["kowiki_qa"])["kowiki_qa"]
    assert statistics.measure([], free)["labels"] == {"free_answer": 0}


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=60))
def test_a_distribution_is_that_of_the_sorted_values(values: list[int]) -> None:
    found = statistics.distribution(Counter(values))
    assert found is not None
    ordered = sorted(values)
    assert (found["count"], found["min"], found["max"]) == (len(values), ordered[0], ordered[-1])
    assert found["mean"] == pytest.approx(sum(values) / len(values), abs=0.006)  # it is rounded to two digits
    for name, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        below = sum(v <= found[name] for v in values)
        assert found[name] in values and below >= share * len(values)
        assert sum(v < found[name] for v in values) < share * len(values)
    lower = 0
    for edge, upper in itertools.pairwise([*statistics.EDGES, float("inf")]):
        last = edge == statistics.EDGES[-1]
        held = sum(v <= edge or last for v in values) - lower
        lower += held
        assert found["histogram"].get(str(edge), 0) == held, (edge, upper)


def test_source_rows_add_up() -> None:
    dropped = {"unknown_label": 3, "too_long": 2}
    counts = {"raw": 20, "records": 17, "unique": 15, "dropped": dropped, "truncated": 1, "repeated": 4, "tokens": 9}
    found = statistics.source(counts)
    assert found["rows"] == found["unique"] + found["repeats"] + sum(found["dropped"].values())
    assert (found["too_long"], found["truncated"]) == (2, 1)


def test_packing_is_learned_masked_and_padding() -> None:
    found = statistics.packing({"rows": 2, "examples": 3, "tokens": 15, "labels": 5}, 10)
    assert (found["learned"], found["masked"], found["padding"], found["efficiency"]) == (5, 10, 5, 0.75)
    assert statistics.packing({"rows": 0, "examples": 0, "tokens": 0, "labels": 0}, 10)["efficiency"] == 0


@pytest.mark.ray
def test_a_builds_statistics_agree_with_its_manifest_and_its_rows(tiny: Config, tiny_build: str) -> None:
    built = manifest.require(tiny_build, "data")
    found = statistics.of_build(tiny_build, built, collect(tiny).tasks)
    assert list(found["tasks"]) == list(built["tasks"])
    for name, task in found["tasks"].items():
        for split in statistics.SPLITS:
            counts = task[split]
            assert counts["examples"] == built["tasks"][name]["examples"][split]
            assert sum(counts["labels"].values()) == counts["examples"]
            assert sum(t["examples"] for t in counts["templates"].values()) == counts["examples"]
    path = Path(storage.filesystem(storage.join(tiny_build, "examples", "train-nsmc.parquet"))[1])
    lengths = sorted(len(row["output"]) for row in pq.read_table(path).to_pylist())
    assert found["tasks"]["nsmc"]["train"]["answer_characters"]["max"] == lengths[-1]
    assert sum(found["packing"]["train"][k] for k in ("learned", "masked", "padding")) == (
        built["splits"]["train"]["rows"] * built["seq_len"]
    )
