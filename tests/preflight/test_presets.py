"""The configs that come with the package fit the GPUs that they say they are made for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kit19_ray.config import examples, loading
from kit19_ray.preflight import plan

GPUS = [name for name in examples.names() if "use_gpu: true" in examples.text(name)]
NUMBERS = {"one": 1, "four": 4, "eight": 8, "16": 16}


def test_there_are_some_for_gpus() -> None:
    assert len(GPUS) >= 6


@pytest.mark.parametrize("name", GPUS)
def test_plan_accepts_it_on_the_gpus_it_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # a plan downloads nothing; offline, the model would be missing
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**13}))  # theirs is no laptop's
    path = tmp_path / "config.yaml"
    path.write_text(examples.text(name), encoding="utf-8")
    config = loading.load(str(path), [f"root={tmp_path}", "data.sources=samples", "serve.port=18764"])
    found = plan.make(config)
    found.require()
    facts = {stage.name: stage.facts for stage in found.stages}["train"]
    said = re.search(r"(\w+) GPUs? of (\d+) GB", examples.about(name))
    assert said is not None and NUMBERS[said[1]] == config.train.workers
    (device,) = facts["devices"]
    assert {"gb": int(said[2]), "fits": True} in device["cards"]
    assert (facts["trained_parameters"] < facts["parameters"]) == ("lora" in name)
