"""Useful tokens per second of packed rows beside padded ones, on the examples that the data stage builds.

    python benchmarks/train_packing.py [--sources samples] [--seq-len 512] [--rows 8] [--rounds 3]

The data stage builds and packs equal quotas of the tasks. Then each side trains its own copy of one GPT-NeoX, from the
same weights and in one process, on the same examples a step: those of `--rows` packed rows. Packed: the rows as they
are, a micro-batch at a time, with the stage's attention, each example alone, and once more with transformers' mask a
row. Padded: each example a row of its own, in a shuffled order, filled up to `--seq-len`, or to the longest of its
micro-batch: as many rows as of the packed ones, and other numbers, of which the fastest is named.

Forward and backward pass, loss, optimizer and threads are the same, so what is compared is packing alone: the padded
sides too have logits on learned tokens only, and no attention mask, which right padding does not need and which would
slow them.

A step's loss is the mean over the learned tokens of its examples; both ways must give the same to 1e-5 of it at the
first weights, and go on to within 1e-4. The sides take turns; a side's speed is the median over the rounds. Useful
tokens are those of the examples, without padding.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import train_job
from environment import describe

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.packed_shards import COLUMNS, Int32, PackedSplit
from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.config.schema import TrainConfig
from kit19_ray.lm import attention
from kit19_ray.train import batches, inputs, worker
from kit19_ray.train import spec as planning
from kit19_ray.train.loss import PackedLM
from kit19_ray.train.spec import TrainSpec

FIRST_TOLERANCE, TOLERANCE = 1e-5, 1e-4  # of a loss: at the first weights, and later
_FILLED, _LONGEST = "padded_to_", "padded_to_longest_of_"
_TURNS_TO_SEQ_LEN = 1  # that count: it is the slowest by far
Columns = dict[str, Int32]


def build(folder: Path, sources: str, seq_len: int, quota: int) -> str:
    """The data prefix of the tasks whose files are there."""
    from kit19_ray.config import loading
    from kit19_ray.data import stage
    from kit19_ray.utils import ray_session

    words = [f"root=file://{folder}/root", f"data.sources={sources}", f"data.seq_len={seq_len}", f"data.quota={quota}"]
    words += ["data.validation=6", "data.validation_fraction=0.15", "data.prompt=koalpaca"]
    if sources != "samples":  # what may be missing of the originals, and is in no evaluation
        words += ["data.on_missing=skip", "data.splits={nsmc: [test], kornli: [validation], pawsx: [validation]}"]
    with ray_session.connected():
        return stage.run(loading.load(None, words))


def examples(rows: Columns) -> list[Columns]:
    """The examples of packed rows, each column int32 `[length]`; the padding behind them has no label."""
    found = []
    for row in range(len(rows["labels"])):
        starts = np.flatnonzero(rows["position_ids"][row] == 0)
        for begin, end in zip(starts, [*starts[1:], rows["labels"].shape[1]]):
            if (rows["labels"][row, begin:end] != IGNORE).any():
                found.append({name: rows[name][row, begin:end] for name in COLUMNS})
    return found


def padded(some: list[Columns], length: int | None) -> Columns:
    """Each example a row, filled up to `length` or to the longest."""
    width = length or max(len(example["input_ids"]) for example in some)
    out = {name: np.full((len(some), width), IGNORE if name == "labels" else 0, np.int32) for name in COLUMNS}
    out["position_ids"][:] = np.arange(width)
    for row, example in enumerate(some):
        for name in ("input_ids", "labels"):
            out[name][row, : len(example[name])] = example[name]
    return out


class Side:
    """One way to lay out the examples, with a model of its own.

    Args:
        size: rows of a micro-batch.
        length: that every row is filled up to; None: the longest of the micro-batch. Without effect where `packed`.
        flat: attention by the examples' borders.
    """

    def __init__(
        self,
        model: Any,
        config: TrainConfig,
        size: int,
        packed: bool = False,
        length: int | None = None,
        flat: bool = False,
    ) -> None:
        self._lm = PackedLM(copy.deepcopy(model), head_on_labels=True).train()
        if flat:
            attention.register()
            self._lm.model.set_attn_implementation(attention.NAME)
        self._flat = flat
        self._optimizer = torch.optim.AdamW(self._lm.parameters(), lr=config.learning_rate, fused=True)
        self._clip, self._size, self._packed, self._length = config.clip_norm, size, packed, length
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.positions = 0

    def step(self, rows: Columns) -> None:
        """Trains on the examples of the packed `rows`."""
        apart = examples(rows)
        order = np.random.default_rng(len(self.losses)).permutation(len(apart))
        labels = int((rows["labels"] != IGNORE).sum())
        begun, total, self.positions = time.perf_counter(), 0.0, 0
        for at in range(0, len(rows["labels"]) if self._packed else len(apart), self._size):
            if self._packed:
                columns = {name: column[at : at + self._size] for name, column in rows.items()}
            else:
                columns = padded([apart[i] for i in order[at : at + self._size]], self._length)
            self.positions += columns["labels"].size
            loss = self._lm(**inputs.to_device(columns, torch.device("cpu"), self._flat))
            (loss / labels).backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self._lm.parameters(), self._clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.seconds.append(time.perf_counter() - begun)
        self.losses.append(total / labels)


def sides(model: Any, config: TrainConfig, seq_len: int) -> dict[str, Side]:
    """Ours first."""
    size = config.micro_batch_size
    found = {
        "packed": Side(model, config, size, packed=True, flat=True),
        "packed_by_masks": Side(model, config, size, packed=True),
    }
    for rows in (max(1, size // 2), size, 2 * size):
        found[f"{_LONGEST}{rows}"] = Side(model, config, rows)
    return found | {f"{_FILLED}{seq_len}": Side(model, config, size, length=seq_len)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", default="samples", help="folder of the original files; default: the samples")
    parser.add_argument("--quota", type=int, default=250, help="examples per task, as far as there are any")
    parser.add_argument("--seq-len", type=int, default=512)
    parser.add_argument("--rows", type=int, default=8, help="packed rows per optimizer step")
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=train_job.cores())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kit19-benchmark-") as name:
        data = build(Path(name), args.sources, args.seq_len, args.quota)
        print(json.dumps(measure(args, data), indent=1))


def measure(args: argparse.Namespace, data: str) -> dict[str, Any]:
    """Trains by turns, compares the losses, and reports."""
    built = manifest.require(data, "data")
    config = TrainConfig.model_validate(
        {
            "cpus_per_worker": args.threads, "use_gpu": False, "batch_size": args.rows, "learning_rate": 1e-3,
            "micro_batch_size": args.micro_batch_size,
        }
    )  # fmt: skip
    split = PackedSplit.open(data, "train")
    ids = {key: built[key] for key in ("vocab_size", "eos_token_id", "pad_token_id")}
    plan = planning.make(config, len(split), args.seq_len)
    worker.prepare_process(TrainSpec(data, data, config, plan, use_gpu=False, seed=train_job.SEED, **ids))
    model = train_job.build_model(config, args.seq_len, **ids)
    every = sides(model, config, args.seq_len)
    to_seq_len = f"{_FILLED}{args.seq_len}"
    useful: list[int] = []
    for step in range(args.rounds + 1):  # the first is for warming up
        rows = split.rows(batches.global_batch(train_job.SEED, step, len(split), args.rows))
        useful.append(sum(len(example["labels"]) for example in examples(rows)))
        for name, side in every.items():
            if step <= _TURNS_TO_SEQ_LEN or name != to_seq_len:
                side.step(rows)
    losses = {name: side.losses for name, side in every.items()}
    apart = [
        max(abs(loss[step] / losses["packed"][step] - 1) for loss in losses.values() if step < len(loss))
        for step in range(len(useful))
    ]
    if apart[0] > FIRST_TOLERANCE or max(apart) > TOLERANCE:
        sys.exit(f"the sides do not train the same: losses {losses}")
    speeds = {
        name: statistics.median(tokens / s for tokens, s in zip(useful[1:], side.seconds[1:]))
        for name, side in every.items()
    }
    longest = max((name for name in speeds if name.startswith(_LONGEST)), key=speeds.__getitem__)
    lengths = np.array([len(example["labels"]) for example in examples(split.rows(range(len(split))))])
    return {
        "benchmark": "train_packing",
        "useful_tokens_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "ratio_to_longest_of_as_many": round(speeds["packed"] / speeds[f"{_LONGEST}{args.micro_batch_size}"], 3),
        "ratio_to_fastest_longest": round(speeds["packed"] / speeds[longest], 3),
        "ratio_to_seq_len": round(speeds["packed"] / speeds[to_seq_len], 3),
        "fastest_padded_to_longest": longest,
        "useful_share": {name: round(useful[len(side.losses) - 1] / side.positions, 3) for name, side in every.items()},
        "losses_apart": {"first_weights": apart[0], "most": max(apart)},
        "examples": {
            "number": len(lengths),
            "tokens_mean": round(float(lengths.mean()), 1),
            **{f"tokens_p{p}": int(np.percentile(lengths, p)) for p in (50, 90, 100)},
        },
        "setting": {
            "sources": "the embedded samples" if args.sources == "samples" else "the original files",
            "parameters": sum(p.numel() for p in model.parameters()),
            "seq_len": args.seq_len,
            "rows": args.rows,
            "micro_batch_size": args.micro_batch_size,
            "threads": args.threads,
            "precision": "fp32",
        },
        "environment": describe(),
    }


if __name__ == "__main__":
    main()
