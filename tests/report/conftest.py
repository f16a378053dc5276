"""Finished train and evaluate prefixes, written as the stages write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.io import storage


class Root:
    """A root to put finished prefixes into."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def data(self, name: str, **config: Any) -> str:
        """A data prefix."""
        splits = {"train": {"examples": 60, "rows": 12}}
        uri = storage.join(self.uri, name)
        manifest.commit(uri, {"stage": "data", "config": {"quota": 30} | config, "splits": splits})
        return uri

    def train(self, name: str, data: str, last: float = 3.0, **config: Any) -> str:
        """A train prefix of three metrics lines."""
        uri = storage.join(self.uri, name)
        lines = [{"step": 0, "validation_loss": 9.5}, {"step": 5, "loss": 6.0, "validation_loss": 5.0}]
        lines += [{"step": 10, "loss": 4.0, "validation_loss": last}]
        storage.write_text(storage.join(uri, "metrics.jsonl"), "".join(json.dumps(line) + "\n" for line in lines))
        made = {
            "stage": "train", "data": data, "config": {"epochs": 1.0, "model": {"layers": 2}} | config, "seed": 19,
            "steps": 10, "tokens": 6400, "tokens_per_second": 1234.5, "seconds": 5.2, "parameters": 362_240,
            "precision": "float32", "validation_loss_first": 9.5, "validation_loss": last, "export": "export",
        }  # fmt: skip
        manifest.commit(uri, made)
        return uri

    def evaluate(
        self, name: str, model: str, correct: dict[str, float] | None = None, limit: int | None = None, n: int = 1000,
        leaks: dict[str, Any] | None = None, nsmc: dict[str, float] | None = None, **entry: Any,
    ) -> str:  # fmt: skip
        """An evaluate prefix of kobest_copa, held-out nsmc (with what `nsmc` adds) and petitions; documents' own
        figures only where `correct` is given."""
        uri = storage.join(self.uri, name)
        copa = {"acc": 0.6, "macro_f1": 0.59, "n": n, "num_fewshot": 0, "version": 1.0, "stderr": {"acc": 0.03}}
        own = {"accuracy": 0.7, "n": 50, "stderr": {"accuracy": 0.04}} | (nsmc or {})
        petitions = {"generation": {"chrf": 12.0, "n": 8, "stderr": {"chrf": 1.0}}}
        scores = {
            "model": model, "num_fewshot": 0, "limit": limit, "tasks": {"kobest_copa": copa | entry},
            "held_out": {"nsmc": own, "petitions": petitions}, "versions": {"lm-eval": "0.4.13"}, "leaks": leaks or {},
        }  # fmt: skip
        storage.write_text(storage.join(uri, "scores.json"), json.dumps(scores))
        if correct is not None:
            outcomes = {"tasks": {"kobest_copa": {"acc": correct}}, "held_out": {}}
            storage.write_text(storage.join(uri, "outcomes.json"), json.dumps(outcomes))
        made = {
            "stage": "evaluate", "scores": "scores.json", "model": model, "held_out": "c" * 64,
            "evaluate": {"limit": limit}, "documents": {"kobest_copa": {"test.tsv": "d" * 64}},
        }  # fmt: skip
        manifest.commit(uri, made)
        return uri


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """An empty root."""
    return Root(f"file://{tmp_path}/runs")


@pytest.fixture(scope="session")
def make_root() -> type[Root]:
    """`Root(uri)`."""
    return Root
