"""A root whose data stage is finished, as far as its manifest says, on two embedded samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config
from kit19_ray.data import stage

ROWS = 66


def make(root: str, **sections: Any) -> Config:
    """A config on two sample tasks; a section's keys are laid over the small ones here."""
    small: dict[str, dict[str, Any]] = {
        "data": {"sources": "samples", "tasks": ["nsmc", "apeach"], "quota": 30, "seq_len": 64},
        "train": {
            "model": {"hidden_size": 32, "layers": 2, "heads": 2},
            "batch_size": 8, "micro_batch_size": 2, "workers": 2, "epochs": 1, "use_gpu": False,
        },
        "evaluate": {},
        "serve": {"port": 18765},
    }  # fmt: skip
    return Config.model_validate({"root": root} | {name: keys | sections.get(name, {}) for name, keys in small.items()})


def finish_data(config: Config) -> str:
    """Commits the manifest of the config's data prefix and returns its URI."""
    uri = stage.uri(config)
    tasks = {name: {"examples": {"train": 30, "validation": 5}} for name in ("nsmc", "apeach")}
    built: dict[str, Any] = {
        "stage": "data", "identity": "0" * 64, "seq_len": 64, "eos_token_id": 0, "pad_token_id": 0,
        "vocab_size": 300, "prompt": "kullm", "tasks": tasks,
        "splits": {"train": {"rows": ROWS, "labels": ROWS * 16}, "validation": {"rows": 7}},
    }  # fmt: skip
    manifest.commit(uri, built)
    return uri


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """See `make`, with a root of the test's own."""
    return make(f"file://{tmp_path}")


@pytest.fixture(scope="session")
def make_config() -> Any:
    """`make(root, **sections)`."""
    return make


@pytest.fixture(scope="session")
def finished_data() -> Any:
    """`finish_data(config)`."""
    return finish_data
