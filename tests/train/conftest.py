"""A small data prefix with the layout and the conventions of the data stage's, and configs that train on it fast."""

from __future__ import annotations

from typing import Any

import pytest

from kit19_ray.config.schema import Config
from kit19_ray.drill import sample_data


def train_config(root: str, **train: Any) -> Config:
    """A config that trains a two-layer model for 16 steps of 8 rows, but for what `train` says."""
    values: dict[str, Any] = {
        "workers": 2,
        "cpus_per_worker": 1,
        "batch_size": 8,
        "micro_batch_size": 2,
        "epochs": 10,
        "max_steps": 16,
        "learning_rate": 1e-2,
        "log_every": 4,
        "eval_every": 8,
        "save_every": 8,
        "samples": 0,
        "max_failures": 0,
        "model": {"hidden_size": 32, "layers": 2, "heads": 2},
    }
    return Config.model_validate({"root": root, "train": values | train})


@pytest.fixture(scope="module")
def data_prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of a finished data prefix of 66 training and 7 validation rows: neither divides by the batch."""
    return sample_data.write(f"file://{tmp_path_factory.mktemp('data')}")


@pytest.fixture(scope="session")
def make_prefix() -> Any:
    """`sample_data.write(root)`, for tests with a root of their own."""
    return sample_data.write


@pytest.fixture(scope="session")
def make_config() -> Any:
    """`train_config(root, **train)`."""
    return train_config


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a published model, as far as anybody can tell: adapters need one."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(5)
    config = transformers.LlamaConfig(  # of 64: bitsandbytes packs rows in blocks of 64, on CPUs that have AVX512-BF16
        vocab_size=320, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
