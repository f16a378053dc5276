"""What the training benchmarks train: random packed rows of fixed lengths, and a job of the train stage on them."""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kit19_ray.artifacts import manifest, packed_shards
from kit19_ray.config.schema import TrainConfig
from kit19_ray.io import storage
from kit19_ray.lm import pretrained
from kit19_ray.train import spec as planning
from kit19_ray.train.spec import TrainSpec

VOCAB = 8192
ROWS = 512
SEED = 19


def build_data(root: str, seq_len: int) -> str:
    """A data prefix of random tokens; examples of 60 to 180 tokens, of which the last fifth is the answer."""
    rng = np.random.default_rng(SEED)
    uri = storage.join(root, "data-benchmark")
    splits: dict[str, Any] = {}
    for split, rows in (("train", ROWS), ("validation", 8)):
        ids = rng.integers(3, VOCAB, (rows, seq_len)).astype(np.int32)
        labels = np.full_like(ids, -100)
        places = np.zeros_like(ids)
        for row in range(rows):
            at = 0
            while at < seq_len:
                end = min(at + int(rng.integers(60, 180)), seq_len)
                answer = at + max(1, (end - at) * 4 // 5)
                labels[row, answer:end] = ids[row, answer:end]
                places[row, at:end] = np.arange(end - at)
                at = end
        data = packed_shards.to_ipc(ids, labels, places)
        path = f"{split}/shard-00000.arrow"
        storage.write_bytes(storage.join(uri, path), data)
        splits[split] = {
            "rows": rows,
            "shards": [{"path": path, "rows": rows, "sha256": hashlib.sha256(data).hexdigest()}],
        }
    manifest.commit(uri, {"stage": "data", "seq_len": seq_len, "splits": splits})
    return uri


def build_model(
    config: TrainConfig, seq_len: int, vocab_size: int = VOCAB, eos_token_id: int = 0, pad_token_id: int = 0
) -> Any:
    """The model that every side trains, with the same weights."""
    return pretrained.build_gpt_neox(
        hidden_size=config.model.hidden_size,
        layers=config.model.layers,
        heads=config.model.heads,
        intermediate_size=config.model.intermediate_size,
        vocab_size=vocab_size,
        seq_len=seq_len,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        seed=SEED,
    )


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """The options that every training benchmark has."""
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--zero-stage", type=int, default=1)


def sizes(args: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    """For a report: what was trained, and how."""
    return {
        "parameters": sum(p.numel() for p in build_model(config, args.seq_len).parameters()),
        "seq_len": args.seq_len,
        "batch_size": args.batch_size,
        "micro_batch_size": args.micro_batch_size,
        "zero_stage": args.zero_stage,
        "workers": config.workers,
        "threads_per_worker": int(config.cpus_per_worker),
        "precision": "fp32",
    }


@contextmanager
def job(args: argparse.Namespace, workers: int, threads: int, root: str = "", **train: Any) -> Iterator[TrainSpec]:
    """A job of the train stage on `build_data`'s rows, at a constant learning rate, with a Ray cluster to run it on.

    Args:
        root: of its prefixes; a folder for the length of the block unless given.
        train: further keys of the config's section.
    """
    from kit19_ray.utils import ray_session

    config = TrainConfig.model_validate(
        {
            "workers": workers, "cpus_per_worker": threads, "use_gpu": False, "zero_stage": args.zero_stage,
            "batch_size": args.batch_size, "micro_batch_size": args.micro_batch_size, "learning_rate": 1e-3,
            "schedule": "constant", "warmup_ratio": 0, "epochs": 1000, "save_minutes": 1000, "samples": 0,
            "trackers": [], "max_failures": 0, **train,
        }
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="kit19-benchmark-") as folder, ray_session.connected(workers * threads):
        root = root or f"file://{folder}"
        yield TrainSpec(
            out=storage.join(root, "train-benchmark"),
            data=build_data(f"file://{folder}", args.seq_len),
            config=config,
            plan=planning.make(config, ROWS, args.seq_len),
            use_gpu=False,
            seed=SEED,
            vocab_size=VOCAB,
            eos_token_id=0,
            pad_token_id=0,
        )


def run(spec: TrainSpec, loop: Callable[[dict[str, Any]], Any], **settings: Any) -> Any:
    """What `loop` returns at rank 0 of workers that the stage's own function starts.

    Args:
        settings: for `loop`, beside `spec`.
    """
    from kit19_ray.train.fit import fit

    def measured(given: dict[str, Any]) -> dict[str, Any]:
        return {"stopped": 0, "measured": loop(given)}  # as far as the stage knows, a run that was asked to stop

    made: Any = fit(spec, measured, settings)
    return made["measured"]


def cores() -> int:
    """CPUs of this machine."""
    return os.cpu_count() or 1
