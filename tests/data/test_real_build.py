"""A build from the real files: what each task keeps and why the rest left, the same for other CPUs and listings."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit19_ray import manifest, settings, storage
from kit19_ray.data import stage

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
COUNTS = {}
DROPPED: dict[str, dict[str, int]] = {}


@pytest.fixture(scope="module")
def built(shared_sources: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    """Built with the files listed in another order than the disk's."""
    listed = storage.list_files
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "list_files", lambda uri: random.Random(7).sample(found := listed(uri), len(found)))
        root = tmp_path_factory.mktemp("real")
        return stage.run(settings.load(None, [f"root={root}", f"data.sources={shared_sources}", *WORDS]))


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
