"""A tiny model with a tokenizer, saved as an export is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.config import loading
from kit19_ray.config.schema import Config, EvaluateConfig
from kit19_ray.evaluate.actors import ScorerPool
from kit19_ray.lm import pretrained
from kit19_ray.lm.loaded_model import context_length


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Documents and datasets are cached in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIT19_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """A folder with a random GPT-NeoX and a byte-level BPE learned from the embedded samples."""
    return save_model(tmp_path_factory.mktemp("model"), samples)


def save_model(folder: Path, samples: Path, **sizes: Any) -> Path:
    import torch

    from kit19_ray.data.tokenizer import train_bpe
    from kit19_ray.lm import pretrained

    lines = [line for path in sorted(samples.glob("kobest_*/*.tsv")) for line in path.read_text("utf-8").splitlines()]
    tokenizer = train_bpe(lines, 600, 512)
    options = {"hidden_size": 32, "layers": 2, "heads": 4, "intermediate_size": None, "seq_len": 192} | sizes
    model = pretrained.build_gpt_neox(
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        seed=7,
        **options,
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)  # fresh weights find every token about as likely: no choice would be clear
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def configured(tmp_path: Path) -> Any:
    """Makes a config on the embedded samples from `section.key=value` words."""

    def make(*words: str) -> Config:
        return loading.load(None, [f"root={tmp_path}/runs", "data.sources=samples", "evaluate.held_out=false", *words])

    return make


@pytest.fixture(scope="module")
def pool(tiny_model: Path, ray_cluster: None) -> Iterator[ScorerPool]:
    """Two actors with the tiny model."""
    made = ScorerPool(str(tiny_model), EvaluateConfig(workers=2, cpus_per_worker=1, batch_tokens=2048))
    yield made
    made.close()


@pytest.fixture(scope="module")
def lm(pool: ScorerPool, tiny_model: Path) -> Any:
    """Our model class of the harness."""
    from kit19_ray.evaluate.ray_lm import RayLM

    tokenizer = pretrained.load_tokenizer(str(tiny_model))
    return RayLM(pool, tokenizer, context_length(pretrained.load_config(str(tiny_model)), tokenizer))


@pytest.fixture(scope="module")
def hf(tiny_model: Path) -> Any:
    """The harness's own."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(tiny_model), device="cpu", batch_size=16)
