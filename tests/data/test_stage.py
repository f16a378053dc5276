"""The whole data stage on a real Ray cluster, from files to shards."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from kit19_ray.artifacts import lexical, manifest
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.data import stage
from kit19_ray.errors import SourceError, TaskError, UserError
from kit19_ray.io import node_cache, storage
from kit19_ray.tasks.task import load_tasks
from tests.data.conftest import TINY

pytestmark = pytest.mark.ray
GATES = (
    "exact_duplicate",
    "identical_pair",
    "contradictory",
    "near_duplicate",
    "near_duplicate_across_tasks",
    "exact_duplicate_across_tasks",
)
SMALL = [
    "data.quota=40",
    "data.validation=5",
    "data.validation_fraction=0.15",
    "data.tokenizer.vocab_size=1200",
    "data.seq_len=192",
    "data.examples_per_shard=200",
    "data.prompt=koalpaca",
]
BALANCES = "data.balances={hatescore: even, question_pair: cap}"  # of a build that has these tasks


def config(root: str | Path, *words: str) -> Config:
    balances = [] if any(word.startswith("data.tasks=") for word in words) else [BALANCES]
    return loading.load(None, [f"root={root}", "data.sources=samples", *SMALL, *balances, *words])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    return stage.run(config(tmp_path_factory.mktemp("root")))


def shard_hashes(uri: str) -> dict[str, str]:
    splits = manifest.require(uri, "data")["splits"]
    return {s["path"]: s["sha256"] for split in splits.values() for s in split["shards"]}


def test_every_task_reaches_its_quota_and_the_counts_add_up(built: str) -> None:
    found = manifest.require(built, "data")
    assert len(found["tasks"]) == 20
    for name, task in found["tasks"].items():
        assert task["examples"]["train"] == 40 and task["shortfall"] == "", name
        gated = sum(task["dropped"].get(reason, 0) for reason in GATES)
        gated += sum(n for reason, n in task["dropped"].items() if reason.startswith("contaminated"))
        lost = sum(task["dropped"].values()) - gated - sum(task["dropped"].get(r, 0) for r in ("too_long", "free_uses"))
        assert task["raw"] == task["records"] + lost
        assert task["records"] == task["unique"] + gated
        assert task["unique"] >= 32
        assert task["tokens"] > task["labels"] > 0
    train = found["splits"]["train"]
    assert train["examples"] + sum(t["dropped"].get("too_long", 0) for t in found["tasks"].values()) == 800
    assert 0.85 < train["packing_efficiency"] <= 1
    assert len(train["shards"]) == 4


def test_classes_are_balanced_as_the_config_says_and_guesses_are_kept(built: str) -> None:
    tasks = manifest.require(built, "data")["tasks"]
    even, capped = tasks["hatescore"], tasks["question_pair"]
    assert {label: c["examples"] for label, c in even["classes"].items()} == {"hate": 14, "abuse": 13, "clean": 13}
    assert all(c["examples"] <= 20 == c["wanted"] for c in capped["classes"].values())
    assert (even["balance"], capped["balance"], tasks["nsmc"]["balance"]) == ("even", "cap", "source")
    with storage.open_input(storage.join(built, "examples/train-question_pair.parquet")) as file:
        labels = Counter(pq.read_table(file, columns=["label"])["label"].to_pylist())
    assert labels == {n: c["examples"] for n, c in enumerate(capped["classes"].values())}
    answers = lexical.read(built)
    assert set(answers) == {name for name, task in tasks.items() if task["baseline"]}
    for name, found in answers.items():
        with storage.open_input(storage.join(built, f"examples/validation-{name}.parquet")) as file:
            rows = [row for row in pq.read_table(file, columns=["id", "label"]).to_pylist() if row["label"] >= 0]
        assert {row["id"] for row in rows} == set(found)
        share = sum(found[row["id"]] == row["label"] for row in rows) / len(rows)
        assert tasks[name]["baseline"]["lexical"] == share


def test_files_are_what_the_manifest_says(built: str) -> None:
    for path, expected in shard_hashes(built).items():
        assert hashlib.sha256(storage.read_bytes(storage.join(built, path))).hexdigest() == expected
    rows = list(csv.DictReader(storage.read_text(storage.join(built, "toolkit_800.csv")).splitlines(keepends=True)))
    assert len(rows) == 800 and set(rows[0]) == {"instruction", "input", "output", "task"}
    assert Counter(r["task"] for r in rows) == dict.fromkeys(manifest.require(built, "data")["tasks"], 40)


def test_the_data_card_loads_with_datasets(built: str) -> None:
    from datasets import load_dataset

    loaded = load_dataset(str(node_cache.local_dir(built)))
    assert {k: len(v) for k, v in loaded.items()}["train"] == 800
    card = storage.read_text(storage.join(built, "README.md"))
    assert "CC BY-NC-ND" in card and "| nsmc |" in card


def unpacked(uri: str, split: str) -> tuple[Counter[str], Counter[str]]:
    """Learned texts and texts before them, read from the split's shards alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(node_cache.local_dir(storage.join(uri, "tokenizer"))))
    packed = PackedSplit.open(uri, split)
    rows = packed.rows(range(len(packed)))
    assert ((rows["labels"] != IGNORE).sum(axis=1) == packed.num_labels).all()
    answers, prompts = Counter(), Counter()
    for ids, labels, positions in zip(rows["input_ids"], rows["labels"], rows["position_ids"], strict=True):
        starts = [*np.flatnonzero(positions == 0), len(ids)]
        for start, end in itertools.pairwise(starts):
            learned = labels[start:end] != IGNORE
            if learned.any():
                answers[tokenizer.decode(ids[start:end][learned]).removesuffix(tokenizer.eos_token)] += 1
                prompts[tokenizer.decode(ids[start:end][~learned])] += 1
    return answers, prompts


def test_packed_rows_hold_every_examples_tokens_with_only_answers_learned(built: str) -> None:
    from kit19_ray.lm.prompts import prompt_format

    answers, prompts = unpacked(built, "validation")
    examples = [
        row
        for file in storage.list_files(storage.join(built, "examples"))
        if file.path.startswith("validation-")
        for row in pq.read_table(storage.filesystem(storage.join(built, "examples", file.path))[1]).to_pylist()
    ]
    assert answers == Counter(r["output"] for r in examples)
    whole = Counter(prompt_format("koalpaca").render(r["instruction"], r["input"]) for r in examples)
    cut = prompts - whole
    assert (
        sum(cut.values())
        <= manifest.require(built, "data")["tasks"]["lbox_summarization"]["examples"]["validation"] * 4
    )


def test_splits_share_no_record(built: str) -> None:
    ids = {"train": set(), "validation": set()}
    for file in storage.list_files(storage.join(built, "examples")):
        table = pq.read_table(storage.filesystem(storage.join(built, "examples", file.path))[1], columns=["id"])
        ids[file.path.split("-")[0]] |= {i.split("-")[0] for i in table["id"].to_pylist()}
    assert not ids["train"] & ids["validation"]


def test_a_finished_build_is_left_alone(built: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = built.rpartition("/")[0]
    before = storage.list_files(built)
    assert stage.run(config(root)) == built
    assert "built already" in capsys.readouterr().err
    assert storage.list_files(built) == before


def test_a_prefix_without_manifest_is_built_anew(tmp_path: Path, ray_cluster: None) -> None:
    small = config(tmp_path, "data.tasks=[nsmc,apeach]")
    uri = stage.uri(small)
    storage.write_text(storage.join(uri, "train/shard-99999.arrow"), "left by a build that was killed")
    assert stage.run(small) == uri
    assert "train/shard-99999.arrow" not in {f.path for f in storage.list_files(uri)}


@pytest.mark.s3
def test_the_same_bytes_on_s3(tiny_build: str, s3_root: str) -> None:
    """With four tasks: the S3 server is this process, and every request waits for it."""
    done = subprocess.run(
        [sys.executable, "-m", "kit19_ray", "data", f"root={s3_root}", *TINY, "data.cpus=2"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    uri = done.stdout.strip().splitlines()[-1]
    assert uri.startswith("s3://") and uri.rpartition("/")[2] == tiny_build.rpartition("/")[2]
    assert shard_hashes(uri) == shard_hashes(tiny_build)


@pytest.mark.parametrize("cpus", [1, 4])
def test_the_number_of_cpus_changes_no_byte(built: str, tmp_path: Path, cpus: int) -> None:
    words = [f"root={tmp_path}", "data.sources=samples", *SMALL, BALANCES, f"data.cpus={cpus}"]
    done = subprocess.run(
        [sys.executable, "-m", "kit19_ray", "data", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    uri = done.stdout.strip().splitlines()[-1]
    assert shard_hashes(uri) == shard_hashes(built)
    for name in ("tokenizer/tokenizer.json", "toolkit_800.csv", "manifest.json"):
        assert storage.read_bytes(storage.join(uri, name)) == storage.read_bytes(storage.join(built, name)), name


@pytest.fixture
def sources(samples: Path, tmp_path: Path) -> Path:
    """A copy of the samples that a test may spoil."""
    shutil.copytree(samples, tmp_path / "sources")
    return tmp_path / "sources"


def spoilt(root: Path, sources: Path, *words: str) -> Config:
    return config(root, f"data.sources={sources}", "data.verify=false", *words)


def test_a_missing_file_is_named_with_the_way_to_get_it(sources: Path, tmp_path: Path) -> None:
    (sources / "nsmc" / "ratings_train.txt").unlink()
    with pytest.raises(SourceError, match=r"(?s)nsmc.*ratings_train\.txt.*put it at"):
        stage.run(spoilt(tmp_path, sources))


def test_a_missing_file_can_be_left_out_and_is_reported(sources: Path, tmp_path: Path, ray_cluster: None) -> None:
    (sources / "nsmc" / "ratings_train.txt").unlink()
    uri = stage.run(spoilt(tmp_path, sources, "data.tasks=[nsmc,apeach]", "data.on_missing=skip"))
    found = manifest.require(uri, "data")
    assert list(found["tasks"]) == ["apeach"] and "ratings_train.txt" in found["skipped"]["nsmc"]


def test_a_wrong_sha256_is_refused(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="SHA-256"):
        stage.run(spoilt(tmp_path, sources, "data.verify=true", "data.tasks=[apeach]"))


def test_bad_rows_are_dropped_counted_and_kept(sources: Path, tmp_path: Path, ray_cluster: None) -> None:
    file = sources / "nsmc" / "ratings_train.txt"
    bad = b"900001\ttoo few\n900002\t\xff\xfe\xfa\t1\n900003\tlabel of its own\t7\n900004\t\t1\n900005\tcut off he"
    file.write_bytes(file.read_bytes().rstrip(b"\n") + b"\n" + bad)
    uri = stage.run(spoilt(tmp_path, sources, "data.tasks=[nsmc]"))
    dropped = manifest.require(uri, "data")["tasks"]["nsmc"]["dropped"]
    assert dropped.keys() >= {"too_few_columns", "invalid_utf8", "unknown_label"}
    kept = [json.loads(line) for line in storage.read_text(storage.join(uri, "rejects/nsmc.jsonl")).splitlines()]
    assert len(kept) == sum(dropped.values()) and {k["reason"] for k in kept} == set(dropped)
    assert all(k["line"] > 1 and k["file"] == "ratings_train.txt" for k in kept)


def test_a_file_in_another_format_is_one_message(sources: Path, tmp_path: Path) -> None:
    (sources / "nsmc" / "ratings_train.txt").write_text("id\tdoc\tlabel\n1\t좋다\t1\n", encoding="utf-8")
    words = [f"root={tmp_path}", f"data.sources={sources}", "data.verify=false", "data.tasks=[nsmc]", "data.cpus=1"]
    done = subprocess.run(
        [sys.executable, "-m", "kit19_ray", "data", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "ratings_train.txt" in done.stderr and "document" in done.stderr


TASK = """
category: sentiment_analysis
description: 스물한 번째 과제
source: {source}
splits: [train]
fields: [text, label]
answer: label
choices: {{"positive": 좋음, "negative": 나쁨}}
templates:
  - {{name: ask, kind: open, instruction: "평가하세요.", input: "{field}", outputs: ["{{{{ choice }}}}"]}}
  - {{name: {second}, kind: open, instruction: "어떤가요?", input: "{{{{ text }}}}", outputs: ["{{{{ choice }}}}"]}}
metrics: [accuracy]
"""


@pytest.mark.parametrize(
    ("filled", "said"),
    [
        ({"field": "{{ txt }}", "second": "other"}, r"txt.*did you mean 'text'"),
        ({"field": "{{ text }}", "second": "ask"}, "duplicate template names: ask"),
        ({"field": "{{ text", "second": "other"}, "stranger.yaml"),
        ({"field": "{{ text }}", "second": "other", "source": "nsmcc"}, "did you mean 'nsmc'"),
    ],
)
def test_a_wrong_task_file_is_named(tmp_path: Path, filled: dict[str, str], said: str) -> None:
    (tmp_path / "stranger.yaml").write_text(TASK.format(**{"source": "nsmc"} | filled), encoding="utf-8")
    with pytest.raises(TaskError, match="(?s)stranger.yaml.*" + said if said != "stranger.yaml" else said):
        stage.run(config(tmp_path, f"data.tasks_dir={tmp_path}", "data.tasks=[stranger]"))


OWN_SOURCE = """
  title: A stranger's reviews
  homepage: https://example.org
  licence: {name: CC0, commercial: true, derivatives: true}
  citation: Nobody
  reader: delimited
  options: {rename: {평: text, 별: label}, labels: {label: {"5": positive, "1": negative}}, drop_empty: [text]}
  files: [{path: reviews.tsv, split: train}]"""


@pytest.mark.parametrize("source", ["nsmc", OWN_SOURCE], ids=["of-the-catalogue", "of-its-own"])
def test_a_21st_task_is_one_file(source: str, sources: Path, tmp_path: Path, ray_cluster: None) -> None:
    """Beside the data, nothing but the task's file is written, and the shards hold what it says."""
    rows = (sources / "nsmc" / "ratings_train.txt").read_text(encoding="utf-8").splitlines()[1:]
    (sources / "stranger").mkdir()
    table = "".join(f"{text}\t{5 if label == '1' else 1}\n" for _, text, label in (row.split("\t") for row in rows))
    (sources / "stranger" / "reviews.tsv").write_text("평\t별\n" + table, encoding="utf-8")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "stranger.yaml").write_text(
        TASK.format(field="{{ text }}", second="other", source=source), encoding="utf-8"
    )
    assert len(load_tasks(None, str(folder))) == 21

    uri = stage.run(spoilt(tmp_path / "root", sources, f"data.tasks_dir={folder}", "data.tasks=[nsmc,stranger]"))
    found = manifest.require(uri, "data")["tasks"]
    assert found["nsmc"]["examples"] and found["stranger"]["examples"]["train"] == 40
    answers, prompts = unpacked(uri, "train")
    assert answers["좋음"] + answers["나쁨"] == 40 and min(answers["좋음"], answers["나쁨"]) >= 10
    assert sum(n for prompt, n in prompts.items() if "평가하세요." in prompt or "어떤가요?" in prompt) == 40
    assert [f.name for f in folder.iterdir()] == ["stranger.yaml"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.quotas.nsmcc=4", "did you mean 'nsmc'"),
        ("data.tasks=[nsmcc]", "did you mean 'nsmc'"),
        ("data.prompt=kulm", "did you mean 'kullm'"),
        ("data.splits.nsmc=[dev]", "no split 'dev'"),
    ],
)
def test_names_that_do_not_exist(tmp_path: Path, word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        stage.run(config(tmp_path, word))
