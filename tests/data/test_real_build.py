"""A build from the real files: what each task keeps and why the rest left, the same for other CPUs and listings."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.config import loading
from kit19_ray.data import stage
from kit19_ray.io import storage

pytestmark = [pytest.mark.ray, pytest.mark.real_data, pytest.mark.slow]

WORDS = [
    "data.on_missing=skip",
    "data.splits={nsmc: [test], kornli: [validation], pawsx: [validation]}",
    "data.quota=400",
    "data.validation=40",
    "data.tokenizer.vocab_size=2000",
    "data.seq_len=256",
    "data.examples_per_shard=1000",
]
# task: rows read, records, unique, examples that use a record again
COUNTS = {
    "apeach": (3770, 3770, 3760, 0),
    "hatescore": (11108, 11108, 11002, 0),
    "kobest_boolq": (3665, 3665, 3662, 0),
    "kobest_copa": (3076, 3076, 3067, 0),
    "kobest_hellaswag": (2029, 2029, 1883, 0),
    "kobest_wic": (3318, 3318, 3318, 0),
    "kornli": (2490, 2490, 2488, 0),
    "korsts": (5749, 5749, 5697, 0),
    "kowiki_generation": (284, 232, 232, 175),
    "kowiki_qa": (284, 250, 250, 159),
    "lbox_summarization": (1, 1, 1, 9),
    "math_korean": (2820, 2820, 2788, 0),
    "nsmc": (50000, 49997, 48953, 0),
    "parakqc": (10000, 10000, 9979, 0),
    "pawsx": (2000, 1965, 1958, 0),
    "petitions": (3691, 3668, 3628, 0),
    "question_pair": (6888, 6888, 6885, 0),
    "sae4k": (30837, 30837, 28566, 0),
    "stylekqc": (24000, 24000, 24000, 0),
    "unsmile": (15005, 15003, 14991, 0),
}
DROPPED: dict[str, dict[str, int]] = {
    "apeach": {"contaminated_kmhas": 8, "near_duplicate": 2},
    "hatescore": {"contaminated_kmhas": 2, "exact_duplicate": 1, "near_duplicate": 103},
    "kobest_boolq": {"contaminated_kmhas": 1, "contaminated_kobest_boolq": 2},
    "kobest_copa": {"contaminated_kobest_copa": 8, "near_duplicate": 1},
    "kobest_hellaswag": {"contaminated_kobest_hellaswag": 9, "exact_duplicate": 137, "too_long": 1},
    "kornli": {"contradictory": 2},
    "korsts": {"exact_duplicate": 49, "near_duplicate": 3},
    "kowiki_generation": {"empty_body": 34, "empty_continuation": 18, "too_long": 353},
    "kowiki_qa": {"empty_body": 34, "too_long": 45},
    "lbox_summarization": {"too_long": 1},
    "math_korean": {"exact_duplicate": 5, "near_duplicate": 27},
    "nsmc": {
        "contaminated_klue_nli": 28,
        "contaminated_kmhas": 34,
        "contaminated_kobest_sentineg": 1,
        "contaminated_korean_hate_speech": 3,
        "contradictory": 288,
        "empty_field": 3,
        "exact_duplicate": 678,
        "near_duplicate": 12,
    },
    "parakqc": {"contaminated_klue_sts": 21},
    "pawsx": {"exact_duplicate": 1, "near_duplicate": 6, "placeholder": 35},
    "petitions": {
        "contaminated_kmhas": 2,
        "empty_field": 23,
        "exact_duplicate": 24,
        "near_duplicate": 14,
        "too_long": 45,
    },
    "question_pair": {"contaminated_kmhas": 1, "exact_duplicate": 1, "near_duplicate": 1},
    "sae4k": {"contradictory": 210, "exact_duplicate": 2055, "near_duplicate": 6},
    "unsmile": {
        "contaminated_kmhas": 5,
        "contaminated_korean_hate_speech": 2,
        "contradictory": 2,
        "exact_duplicate": 1,
        "near_duplicate": 2,
        "no_label": 2,
    },
}


@pytest.fixture(scope="module")
def built(shared_sources: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    """Built with the files listed in another order than the disk's."""
    listed = storage.list_files
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "list_files", lambda uri: random.Random(7).sample(found := listed(uri), len(found)))
        root = tmp_path_factory.mktemp("real")
        return stage.run(loading.load(None, [f"root={root}", f"data.sources={shared_sources}", *WORDS]))


def test_every_row_is_accounted_for(built: str) -> None:
    found = manifest.require(built, "data")
    assert found["decontamination"]["absent"] == ["klue_ynat"]
    counts = {n: (t["raw"], t["records"], t["unique"], t["repeated"]) for n, t in found["tasks"].items()}
    dropped = {n: t["dropped"] for n, t in found["tasks"].items() if t["dropped"]}
    assert counts == COUNTS
    assert dropped == DROPPED
    assert {n for n, t in found["tasks"].items() if t["shortfall"]} == {"lbox_summarization"}
    assert found["tasks"]["lbox_summarization"]["shortfall"] == (
        "1 training records under 10 templates give 10 of 400 examples"
    )


def test_one_cpu_gives_the_same_bytes(built: str, shared_sources: Path, tmp_path: Path) -> None:
    words = [f"root={tmp_path}", f"data.sources={shared_sources}", *WORDS, "data.cpus=1"]
    done = subprocess.run(
        [sys.executable, "-m", "kit19_ray", "data", *words], capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr
    uri = done.stdout.strip().splitlines()[-1]
    assert uri.rpartition("/")[2] == built.rpartition("/")[2]

    def files(prefix: str) -> dict[str, Any]:
        return {f.path: storage.read_bytes(f"{prefix}/{f.path}") for f in storage.list_files(prefix)}

    assert files(uri) == files(built)
