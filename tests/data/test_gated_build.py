"""Gates, mixtures and the ablation in whole builds on a real Ray cluster."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.data import stage
from kit19_ray.errors import DataError
from kit19_ray.io import storage
from kit19_ray.sources.catalog import load_catalog
from kit19_ray.sources.readers.base import LocatedFile, SourceRow

pytestmark = pytest.mark.ray
SMALL = [
    "data.verify=false",
    "data.quota=40",
    "data.validation=5",
    "data.tokenizer.vocab_size=600",
    "data.seq_len=192",
    "data.prompt=koalpaca",
]


@pytest.fixture
def sources(samples: Path, tmp_path: Path) -> Path:
    """A copy of the samples that a test may add to."""
    shutil.copytree(samples, tmp_path / "sources")
    return tmp_path / "sources"


def config(root: Path, sources: Path, *words: str) -> Config:
    return loading.load(None, [f"root={root}", f"data.sources={sources}", *SMALL, *words])


def built(root: Path, sources: Path, *words: str) -> tuple[str, dict[str, Any]]:
    uri = stage.run(config(root, sources, *words))
    return uri, manifest.require(uri, "data")


def rejects(uri: str, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in storage.read_text(f"{uri}/rejects/{task}.jsonl").splitlines()]


def append(path: Path, *rows: str) -> None:
    text = path.read_text(encoding="utf-8")
    gap = "" if text.endswith("\n") else "\n"  # some files end without one
    path.write_text(text + gap + "".join(row + "\n" for row in rows), encoding="utf-8")


def sentences(source: str, path: Path, field: str) -> list[str]:
    """The texts of a sample file, through its reader."""
    catalog = load_catalog()[source]
    file = next(f for f in catalog.files if f.path == path.name)
    located = LocatedFile(f"file://{path}", path.name, file.split, options=file.options)
    return [raw.fields[field] for raw in catalog.read(located) if isinstance(raw, SourceRow)]


def test_planted_evaluation_rows_are_all_found(sources: Path, tmp_path: Path, ray_cluster: None) -> None:
    """HellaSwag's test contexts among the movie reviews: as they are, spaced and punctuated anew, one word changed."""
    leaks = sentences("kobest_hellaswag", sources / "kobest_hellaswag" / "test.tsv", "context")[:12]
    planted: list[str] = []
    for number, text in enumerate(leaks):
        words = text.split()
        changed = [*words]
        changed[len(words) // 2] = "개나리"
        planted += [text, text.replace(" ", ""), " ".join(words).replace(".", "!") + " ^^", " ".join(changed)]
        append(sources / "nsmc" / "ratings_train.txt", *(f"9{number}{i}\t{t}\t1" for i, t in enumerate(planted[-4:])))
    uri, found = built(tmp_path, sources, "data.tasks=[nsmc]")
    assert found["tasks"]["nsmc"]["dropped"]["contaminated_kobest_hellaswag"] == len(planted) == 48
    shown = [r["row"]["text"] for r in rejects(uri, "nsmc") if r["reason"].startswith("contaminated")]
    assert sorted(shown) == sorted(planted)
    assert {r["file"] for r in rejects(uri, "nsmc")} == {"ratings_train.txt"}
    assert found["decontamination"]["absent"]  # the samples have no KLUE
    clean = [r for r in rejects(uri, "nsmc") if r["line"] <= 51 and r["reason"].startswith("contaminated")]
    assert clean == []  # none of the sample reviews was taken for a leak

    leaky, ablated = built(tmp_path, sources, "data.tasks=[nsmc,kobest_hellaswag]", "data.ablation=with-test")
    assert ablated["ablation"] == "with-test"
    assert not any(r.startswith("contaminated") for t in ablated["tasks"].values() for r in t["dropped"])
    assert "test" in ablated["tasks"]["kobest_hellaswag"]["splits"]
    assert "Leaky on purpose" in storage.read_text(f"{leaky}/README.md")


def test_duplicates_leave_with_a_reason(sources: Path, tmp_path: Path, ray_cluster: None) -> None:
    review = "주말 저녁에 온 가족이 둘러앉아 보기 좋은 따뜻하고 잔잔한 이야기였다고 생각합니다"
    near = f"{review} 진짜"
    append(
        sources / "nsmc" / "ratings_train.txt",
        f"901\t{review}\t1",
        f"902\t{review.replace(' ', '  ')}\t1",
        f"903\t{near}\t1",
        "904\t이 영화는 뭐라고 해야 할지 모르겠다\t1",
        "905\t이 영화는 뭐라고 해야 할지 모르겠다\t0",
        "906\t이 영화는 뭐라고 해야 할지 모르겠다\t1",
    )
    append(sources / "unsmile" / "unsmile_train_v1.0.tsv", "\t".join([near, *"00000000010"]))
    uri, found = built(tmp_path, sources, "data.tasks=[nsmc,unsmile]")
    nsmc, unsmile = found["tasks"]["nsmc"]["dropped"], found["tasks"]["unsmile"]["dropped"]
    assert nsmc["exact_duplicate"] == 1
    assert nsmc["contradictory"] == 3
    across = sum(d.get(r, 0) for d in (nsmc, unsmile) for r in ("near_duplicate", "near_duplicate_across_tasks",
                                                              "exact_duplicate_across_tasks"))  # fmt: skip
    assert across == 2  # of three nearly equal texts one is left, wherever it stands
    reasons = {(r["line"], r["reason"]) for r in rejects(uri, "nsmc")}
    assert (54, "exact_duplicate") in reasons  # the header, 51 samples, then ours
    assert {line for line, reason in reasons if reason == "contradictory"} == {56, 57, 58}
    assert all(r["row"] for r in rejects(uri, "nsmc"))

    _, off = built(
        tmp_path, sources, "data.tasks=[nsmc]", "data.gates.duplicates=false", "data.gates.near_duplicates=1"
    )
    assert set(off["tasks"]["nsmc"]["dropped"]) == {"empty_field"}


def test_pairs_of_one_sentence_leave_with_a_reason(sources: Path, tmp_path: Path, ray_cluster: None) -> None:
    file = sources / "question_pair" / "kor_pair_train.csv"
    before = len(file.read_text("utf-8-sig").splitlines())
    append(
        file,
        "901,1,2,점심에 뭐 먹을까,점심에 뭐  먹을까,0",
        "902,3,4,점심에 뭐 먹을까,저녁에 뭐 먹을까,1",
        "903,5,6,TV 보고 싶다,tv보고 싶다,1",
    )
    uri, found = built(tmp_path, sources, "data.tasks=[question_pair]")
    assert found["tasks"]["question_pair"]["dropped"]["identical_pair"] == 2
    left = [r for r in rejects(uri, "question_pair") if r["reason"] == "identical_pair"]
    assert [r["line"] for r in left] == [before + 1, before + 3]
    assert left[1]["row"]["question2"] == "tv보고 싶다"
    (toolkit,) = [info.path for info in storage.list_files(uri) if info.path.endswith(".csv")]
    text = storage.read_text(storage.join(uri, toolkit))
    assert "tv보고 싶다" not in text and "점심에 뭐  먹을까" not in text
    _, off = built(tmp_path, sources, "data.tasks=[question_pair]", "data.gates.identical_pairs=false")
    assert "identical_pair" not in off["tasks"]["question_pair"]["dropped"]


def test_another_mixture_uses_what_is_there(samples: Path, tmp_path: Path, ray_cluster: None) -> None:
    tokenizer = tmp_path / "tokenizer"
    first, found = built(tmp_path, samples, "data.tasks=[nsmc,apeach,kowiki_qa]")
    storage.download_dir(f"{first}/tokenizer", tokenizer)
    words = [f"data.tokenizer.name={tokenizer}", "data.quota=5000", "data.tasks=[nsmc,apeach,kowiki_qa]"]
    built(tmp_path, samples, *words, "data.weights={nsmc: 3, apeach: 1, kowiki_qa: 0}", "data.total=80")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "tasks").rglob("*") if p.is_file()}
    uri, mixed = built(tmp_path, samples, *words, "data.weights={nsmc: 1, apeach: 3, kowiki_qa: 0}", "data.total=80")
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "tasks").rglob("*") if p.is_file()}
    assert after == before
    assert {name: t["examples"]["train"] for name, t in mixed["tasks"].items()} == {"nsmc": 20, "apeach": 60}
    assert mixed["skipped"] == {"kowiki_qa": "data.weights gives it no example"}
    del found, uri


def test_a_policy_leaves_tasks_out_and_says_so(
    samples: Path, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="data.licence_policy=commercial: task 'unsmile'"):
        stage.run(config(tmp_path, samples, "data.tasks=[unsmile]", "data.licence_policy=commercial"))
    with pytest.raises(DataError, match="every task has weight 0"):
        stage.run(config(tmp_path, samples, "data.tasks=[nsmc]", "data.weights={'*': 0}", "data.total=1"))
    uri = stage.uri(config(tmp_path, samples, "data.licence_policy=commercial"))
    assert manifest.read(uri) is None  # naming the prefix builds nothing
    stage.run(config(tmp_path, samples, "data.tasks=[nsmc,unsmile]"))
    assert "Korean UnSmile (CC BY-NC-ND 4.0) forbids commercial use and derivatives" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_behind(samples: Path, tmp_path: Path) -> None:
    """kill -9 at four moments, then to the end: the bytes of a build that nobody touched, and no other file."""
    words = [f"data.sources={samples}", *SMALL, "data.tasks=[nsmc,apeach,kornli,sae4k]", "data.cpus=2"]

    def start(root: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "kit19_ray", "data", f"root={root}", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def files(root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for wanted in (r"tasks/.*/rows/", r"tasks/.*/records-.*parquet", r"tasks/.*/tokens-", r"data-.*/train/"):
        with start(cut) as process:
            until = time.monotonic() + 120
            while time.monotonic() < until and process.poll() is None:
                if any(re.match(wanted, name) for name in map(str, (p.relative_to(cut) for p in cut.rglob("*")))):
                    break
                time.sleep(random.Random(wanted).uniform(0.001, 0.02))
            os.killpg(process.pid, signal.SIGKILL)
    for root in (cut, whole):
        with start(root) as process:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors.decode()
    assert files(cut) == files(whole)
