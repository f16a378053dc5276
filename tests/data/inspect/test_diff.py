from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.schemas import EXAMPLE_SCHEMA
from kit19_ray.data.inspect import diff
from kit19_ray.errors import StorageError
from kit19_ray.io import storage


def row(id_: str, **other: Any) -> dict[str, Any]:
    base = {f.name: "" if pa.types.is_string(f.type) else None for f in EXAMPLE_SCHEMA}
    numbers = {"label": 0, "candidates": ["가", "나"], "order": 1}
    return base | numbers | {"id": id_, "output": f"답 {id_}", "template": "ask", "source_id": "f:1"} | other


def stats(train: int, **other: Any) -> dict[str, Any]:
    built: dict[str, Any] = {"licence": "CC0", "splits": ["train"], "sha256": {}}
    return built | {"examples": {"train": train, "validation": 0}, "dropped": {}, "tokens": 10 * train} | other


def prefix(folder: Path, rows: dict[str, list[dict[str, Any]]], **other: Any) -> str:
    """A finished data prefix as far as a comparison reads it."""
    tasks = other.pop("tasks", {name: stats(len(held)) for name, held in rows.items()})
    for name, held in rows.items():
        path = folder / "examples" / f"train-{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(held, EXAMPLE_SCHEMA), path)
    built = {"stage": "data", "identity": folder.name * 8, "seed": 19, "config": {"quota": 3}, "tasks": tasks}
    manifest.commit(storage.normalise(folder), built | other)
    return str(folder)


def test_rows_added_removed_and_changed_are_told_apart(tmp_path: Path) -> None:
    a = prefix(tmp_path / "a", {"nsmc": [row("1"), row("2"), row("3"), row("5")]})
    changed = [row("2", order=9, source_id="f:7"), row("3", output="다른 답"), row("4"), row("5", candidates=["가"])]
    b = prefix(tmp_path / "b", {"nsmc": changed})
    found = diff.diff(a, b, 5)
    assert found["rows"] == {"added": 1, "removed": 1, "changed": 2, "same": 1}
    shown = found["tasks"]["nsmc"]["shown"]
    assert [(r["a"], r["b"]["id"]) for r in shown["added"]] == [(None, "4")]
    assert [(r["a"]["id"], r["b"]) for r in shown["removed"]] == [("1", None)]
    assert {r["a"]["id"]: r["b"]["output"] for r in shown["changed"]} == {"3": "다른 답", "5": "답 5"}
    assert diff.diff(a, b, 1)["rows"] == found["rows"]
    assert len(diff.diff(a, b, 1)["tasks"]["nsmc"]["shown"]["changed"]) == 1
    assert diff.diff(a, b, 0)["tasks"]["nsmc"]["shown"] == {"added": [], "removed": [], "changed": []}


def test_settings_sources_counts_and_drops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = stats(1, dropped={"unknown_label": 3}, sha256={"f": "aa"}, licence="CC0", splits=["train"])
    right = stats(2, dropped={"near_duplicate": 1}, sha256={"f": "bb"}, licence="CC0", splits=["train"])
    a = prefix(tmp_path / "a", {"nsmc": [row("1")], "gone": []}, tasks={"nsmc": left, "gone": stats(0)})
    b = prefix(
        tmp_path / "b",
        {"nsmc": [row("1"), row("2")]},
        tasks={"nsmc": right},
        config={"quota": 4, "tokenizer": {"name": "x"}},
        ablation="with-test",
    )
    found = diff.diff(a, b, 1)
    assert found["config"] == {
        "ablation": ["(none)", "with-test"],
        "data.quota": [3, 4],
        "data.tokenizer.name": ["(none)", "x"],
    }
    task = found["tasks"]["nsmc"]
    assert task["settings"] == {"sha256.f": ["aa", "bb"]}
    assert task["dropped"] == {"near_duplicate": [0, 1], "unknown_label": [3, 0]}
    assert (task["examples"]["train"], task["counts"]["tokens"]) == ([1, 2], [10, 20])
    assert found["tasks"]["gone"]["in"] == "a"
    diff.show(found)
    shown = capsys.readouterr().out
    for text in (
        "data.quota: 3 -> 4",
        "nsmc: sha256.f: aa -> bb",
        "gone (only A)",
        "near_duplicate 0 -> 1, unknown_label 3 -> 0",
        "rows: 1 added, 0 removed, 0 changed, 1 the same",
        "added nsmc (train)",
        "+ output: 답 2",
    ):
        assert text in shown, text


def test_examples_come_from_every_task_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {name: [row(f"{name}{n}") for n in range(5)] for name in ("x", "y", "z")}
    a = prefix(tmp_path / "a", {"x": [], "y": [], "z": []})
    diff.show(diff.diff(a, prefix(tmp_path / "b", rows), 2))
    shown = capsys.readouterr().out
    assert shown.count("added x (train)") == shown.count("added y (train)") == 1 and "added z" not in shown


tree = st.recursive(st.integers() | st.none(), lambda t: st.dictionaries(st.sampled_from("abc"), t, max_size=3))


@given(st.dictionaries(st.sampled_from("abc"), tree), st.dictionaries(st.sampled_from("abc"), tree))
def test_changes_are_empty_for_equal_trees_and_mirror_when_swapped(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert diff.changes(a, a) == {}
    assert diff.changes(b, a) == {key: [right, left] for key, (left, right) in diff.changes(a, b).items()}


def test_an_unfinished_prefix_and_another_stage_are_refused(tmp_path: Path) -> None:
    a = prefix(tmp_path / "a", {"nsmc": [row("1")]})
    with pytest.raises(StorageError, match="was never finished there"):
        diff.diff(a, str(tmp_path / "none"), 1)
    manifest.commit(storage.normalise(tmp_path / "t"), {"stage": "train"})
    with pytest.raises(StorageError, match="its manifest.json is that of 'train', not of 'data'"):
        diff.diff(str(tmp_path / "t"), a, 1)


def kit19(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kit19_ray", "data", *words], capture_output=True, text=True, timeout=120
    )


@pytest.mark.ray
def test_a_build_equals_itself(tiny_build: str) -> None:
    found = json.loads(kit19("--diff", tiny_build, tiny_build, "--json").stdout)
    assert found["equal_identity"] and found["config"] == {}
    assert found["rows"]["same"] > 100 and sum(found["rows"].values()) == found["rows"]["same"]
    shown = kit19("--diff", tiny_build, tiny_build).stdout
    assert "same identity" in shown and "no setting and no source file differs" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--diff", "file:///nowhere/a", "file:///nowhere/b"], "file:///nowhere/a has no manifest.json"),
        (["--diff", "a"], "requires 2 arguments"),
        (["--examples", "2", "--preview", "1", "root=file:///nowhere"], "--examples goes with --diff"),
        (["--diff", "a", "b", "seed=3"], "takes no config, no override and no --preview"),
        (["--diff", "a", "b", "--preview", "3"], "takes no config, no override and no --preview"),
    ],
)
def test_mistakes_exit_2(words: list[str], said: str) -> None:
    done = kit19(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr
