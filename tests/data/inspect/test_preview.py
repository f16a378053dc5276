from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.data.inspect import preview
from kit19_ray.errors import ConfigError, SourceError
from kit19_ray.io import storage
from kit19_ray.lm.prompts import prompt_format


def config(*words: str) -> Config:
    return loading.load(None, ["root=file:///nowhere", "data.sources=samples", *words])


def kit19(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kit19_ray", "data", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environ},
    )


def test_few_rows_still_come_from_many_tasks_and_more_rows_begin_with_the_same() -> None:
    few, many = (preview.preview(config(), num)["rows"] for num in (5, 50))
    assert len({row["task"] for row in few}) == 5
    assert [row["id"] for row in many[:5]] == [row["id"] for row in few]
    assert len(many) == 50 and len({row["id"] for row in many}) == 50
    assert len({row["task"] for row in many}) == 20


def test_without_a_build_counts_are_characters() -> None:
    found = preview.preview(config(), 4)
    assert found["tokenizer"] is None
    for row in found["rows"]:
        assert row["masked"] == prompt_format("kullm").render(row["instruction"], row["input"])
        assert row["learned"] == row["output"] + "<end of text>"
        assert (row["num_masked"], row["num_learned"]) == (len(row["masked"]), len(row["output"]) + 1)


@pytest.mark.ray
def test_rows_and_tokens_are_those_of_the_build(tiny: Config, tiny_build: str) -> None:
    found = preview.preview(tiny, 20)
    assert found["tokenizer"] == tiny_build
    built = {
        row["id"]: row
        for file in storage.list_files(storage.join(tiny_build, "examples"))
        if file.path.startswith("train-")
        for row in pq.read_table(storage.filesystem(storage.join(tiny_build, "examples", file.path))[1]).to_pylist()
    }
    for row in found["rows"]:
        assert {key: row[key] for key in ("instruction", "input", "output", "template", "label", "order")} == {
            key: built[row["id"]][key] for key in ("instruction", "input", "output", "template", "label", "order")
        }
        assert row["labels"] == [IGNORE] * row["num_masked"] + row["input_ids"][row["num_masked"] :]
        assert row["learned"] == row["output"] + "<|endoftext|>"
        if not row["cut"]:
            assert row["masked"] == prompt_format("koalpaca").render(row["instruction"], row["input"])


@pytest.mark.ray
def test_a_cut_and_a_left_out_row_say_so(tiny: Config, tiny_build: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"root={tiny.root}", "data.sources=samples", f"data.tokenizer.name={tiny_build}/tokenizer"]
    words += ["data.tasks=[kowiki_qa]", "data.prompt=koalpaca"]
    found = preview.preview(loading.load(None, [*words, "data.seq_len=64"]), 20)
    assert found["tokenizer"] == f"{tiny_build}/tokenizer"
    cut = [row for row in found["rows"] if row.get("cut")]
    left_out = [row for row in found["rows"] if "left_out" in row]
    assert cut or left_out
    for row in cut:
        assert row["num_masked"] + row["num_learned"] <= 64
    preview.show(found)
    shown = capsys.readouterr().out
    assert shown.count(", input cut") == len(cut) and shown.count("left out: ") == len(left_out)


def test_a_quota_is_not_exceeded() -> None:
    assert len(preview.preview(config("data.tasks=[nsmc]", "data.quota=3"), 9)["rows"]) == 3


def test_a_long_source_is_read_from_its_head_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preview, "HEAD", 7)
    found = preview.preview(config("data.tasks=[nsmc]"), 2)
    assert found["heads"] == {"nsmc": 7}
    assert all(int(row["source_id"].rpartition(":")[2]) <= 8 for row in found["rows"])
    assert "nsmc: drawn from the first 7 rows of the source only" in capsys.readouterr().err


def test_large_sources_are_not_hashed_to_find_a_build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preview, "_HASHED", 0)
    monkeypatch.setattr(preview.stage, "uri", lambda _: pytest.fail("hashed"))
    assert preview.preview(config("data.tasks=[nsmc]"), 1)["tokenizer"] is None
    assert "so no finished build was looked for" in capsys.readouterr().err


def test_a_missing_source_is_an_error_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match=r"ratings_train\.txt"):
        preview.preview(config("data.tasks=[nsmc]", f"data.sources={tmp_path}"), 1)
    (tmp_path / "apeach").mkdir()
    (tmp_path / "apeach" / "test.csv").write_text("text,class,text_topic\n좋은 날,Default,날씨\n", encoding="utf-8")
    words = ["data.tasks=[nsmc,apeach]", f"data.sources={tmp_path}", "data.on_missing=skip", "data.verify=false"]
    found = preview.preview(config(*words, "data.validation_fraction=0"), 1)
    assert [row["task"] for row in found["rows"]] == ["apeach"]
    assert "nsmc left out" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="did you mean 'kullm'"):
        preview.preview(config("data.prompt=kulm"), 1)


def test_what_is_learned_is_marked_or_coloured() -> None:
    words = ["--preview", "1", "root=file:///nowhere", "data.sources=samples", "data.tasks=[nsmc]"]
    plain = kit19(*words, NO_COLOR="1").stdout
    assert plain.count("⟦") == 2 and "\x1b[" not in plain and "<end of text>⟧" in plain
    coloured = kit19(*words, FORCE_COLOR="1", NO_COLOR="", TERM="xterm-256color").stdout
    assert "⟦" not in coloured and "\x1b[32m" in coloured and "\x1b[2m" in coloured


def test_the_command_starts_no_ray() -> None:
    done = kit19("--preview", "20", "--json", "root=file:///nowhere", "data.sources=samples", RAY_ADDRESS="nowhere:1")
    assert len(json.loads(done.stdout)["rows"]) == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--preview", "0", "root=file:///nowhere"], "greater than or equal to 1"),
        (["--json", "root=file:///nowhere"], "--json goes with --preview or --diff"),
        (["--preview", "1"], "root: where the output goes is not set"),
    ],
)
def test_mistakes_exit_2(words: list[str], said: str) -> None:
    done = kit19(*words, KIT19_ROOT="")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr
