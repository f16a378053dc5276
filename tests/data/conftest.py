from __future__ import annotations

import pytest

from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.data import stage
from kit19_ray.utils import ray_session

TINY = [
    "data.sources=samples",
    "data.tasks=[nsmc,sae4k,kowiki_qa,parakqc]",
    "data.quota=30",
    "data.validation=4",
    "data.validation_fraction=0.2",
    "data.tokenizer.vocab_size=800",
    "data.seq_len=160",
    "data.examples_per_shard=50",
    "data.prompt=koalpaca",
]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of `tiny_build`: four tasks of the samples, with labels and without."""
    return loading.load(None, [f"root={tmp_path_factory.mktemp('tiny')}", *TINY])


@pytest.fixture(scope="session")
def tiny_build(tiny: Config) -> str:
    """A small finished data prefix that tests may read."""
    with ray_session.connected(cpus=2):
        return stage.run(tiny)
