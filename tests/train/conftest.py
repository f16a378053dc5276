"""A small data prefix with the layout and the conventions of the data stage's, and configs that train on it fast."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit19_ray.artifacts import manifest, packed_shards
from kit19_ray.config.schema import Config
from kit19_ray.io import storage

SEQ_LEN, VOCAB = 64, 300
EOS = 0


def build_prefix(root: str, train_rows: int = 66, validation_rows: int = 7) -> str:
    """Writes a data prefix: packed examples whose answer counts up from the prompt's first token, and a tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    rng = np.random.default_rng(19)
    uri = storage.join(root, "data-synthetic")
    splits: dict[str, Any] = {}
    for split, rows in (("train", train_rows), ("validation", validation_rows)):
        columns = zip(*(_packed_row(rng) for _ in range(rows)), strict=True)
        arrays = [np.stack(column) for column in columns]
        data = packed_shards.to_ipc(*arrays)
        path = f"{split}/shard-00000.arrow"
        storage.write_bytes(storage.join(uri, path), data)
        entry = {"path": path, "rows": rows, "sha256": hashlib.sha256(data).hexdigest()}
        splits[split] = {"rows": rows, "labels": int((arrays[1] != -100).sum()), "shards": [entry]}
    words = {"<eos>": EOS} | {f"w{i}": i for i in range(1, VOCAB)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<eos>")), eos_token="<eos>"
    )
    folder = Path(storage.filesystem(storage.join(uri, "tokenizer"))[1])
    if uri.startswith("file://"):
        tokenizer.save_pretrained(folder)
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as name:
            tokenizer.save_pretrained(name)
            storage.upload_dir(Path(name), storage.join(uri, "tokenizer"))
    manifest.commit(
        uri,
        {
            "stage": "data",
            "seq_len": SEQ_LEN,
            "eos_token_id": EOS,
            "pad_token_id": EOS,
            "vocab_size": VOCAB,
            "prompt": "kullm",
            "splits": splits,
            "tasks": {},
        },
    )
    return uri


def _packed_row(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids = rng.integers(3, VOCAB, SEQ_LEN).astype(np.int32)
    labels = np.full(SEQ_LEN, -100, np.int32)
    places = np.zeros(SEQ_LEN, np.int32)
    at = 0
    while at < SEQ_LEN:
        end = min(at + int(rng.integers(8, 40)), SEQ_LEN)
        answer = at + max(1, (end - at) * 3 // 4)
        ids[answer:end] = (ids[at] + np.arange(end - answer)) % VOCAB
        labels[answer:end] = ids[answer:end]
        places[at:end] = np.arange(end - at)
        at = end
    return ids, labels, places


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
    return build_prefix(f"file://{tmp_path_factory.mktemp('data')}")


@pytest.fixture(scope="session")
def make_prefix() -> Any:
    """`build_prefix(root)`, for tests with a root of their own."""
    return build_prefix


@pytest.fixture(scope="session")
def make_config() -> Any:
    """`train_config(root, **train)`."""
    return train_config
