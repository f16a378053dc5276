"""Training speed of one worker of the train stage beside a plain PyTorch loop.

    python benchmarks/train_step.py [--seq-len 256] [--micro-batch-size 8] [--zero-stage 1] [--threads 2] [--out FILE]

Both train the same GPT-NeoX from the same weights on the same packed rows with the same batch, threads and optimizer
(torch's fused AdamW) in fp32. Ours is what `kit19 train` runs: a Ray Train worker, DeepSpeed, our loss, prefetch and
metrics. The plain loop is a process of its own, as one would write it: the model's logits, PyTorch's cross-entropy,
gradient accumulation, clipping; without Ray and DeepSpeed. The two take turns in one run, so that whatever else the
machine does hits both; the ratio is of the medians over the rounds. Tokens include padding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import train_job
from environment import describe

from kit19_ray.artifacts import packed_shards
from kit19_ray.train import batches
from kit19_ray.train.spec import TrainSpec


class PlainLoop:
    """The peer, an actor with default settings: a PyTorch loop as one would write it."""

    def __init__(self, job: TrainSpec) -> None:
        import torch

        torch.set_num_threads(int(job.config.cpus_per_worker))
        self._job, self._step = job, 0
        self._model = train_job.build_model(job.config, job.plan.seq_len).train()
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(),
            lr=job.config.learning_rate,
            betas=(0.9, job.config.beta2),
            weight_decay=0.0,
            fused=True,
        )
        self._split = packed_shards.PackedSplit.open(job.data, "train")

    def run(self, steps: int) -> tuple[float, float]:
        """Trains `steps` optimizer steps; returns their seconds and the last one's loss."""
        begun = time.perf_counter()
        loss = [self._one_step() for _ in range(steps)][-1]
        return time.perf_counter() - begun, loss

    def _one_step(self) -> float:
        import torch

        plan = self._job.plan
        rows = batches.global_batch(self._job.seed, self._step, plan.rows, plan.batch_size)
        count = int(self._split.num_labels[rows].sum())
        summed = 0.0
        for part in batches.micro_batches(rows, plan.micro_batch_size, plan.accumulation):
            columns = {k: torch.from_numpy(v.astype(np.int64)) for k, v in self._split.rows(part).items()}
            logits = self._model(
                input_ids=columns["input_ids"], position_ids=columns["position_ids"], use_cache=False
            ).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, logits.shape[-1]), columns["labels"][:, 1:].reshape(-1), reduction="sum"
            )
            torch.autograd.backward(loss / count)
            summed += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._job.config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1
        return summed / count


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Runs in the one Ray Train worker: our steps and the peer's by turns."""
    import ray
    import ray.util
    import torch

    from kit19_ray.train import trainer, worker
    from kit19_ray.train.agreement import Agreement

    job: TrainSpec = settings["spec"]
    rounds, steps = settings["rounds"], settings["steps"]
    worker.prepare_process(job)
    peer = ray.remote(num_cpus=0)(PlainLoop).remote(job)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    losses: dict[str, float] = {}
    agreement = Agreement(ray.util.get_node_ip_address(), 600)
    with trainer.Trainer(job, torch.device("cpu"), agreement) as run:
        run.prepare()
        following = run.fetch(0)
        step = 0
        for number in range(rounds + 1):  # the first is for warming up
            plain_seconds, losses["plain"] = ray.get(peer.run.remote(steps))
            begun = time.perf_counter()
            for _ in range(steps):
                read = following.result()
                step += 1
                following = run.fetch(step)
                rate = run.train_step(read)
                losses["ours"] = run.training_figures(rate)["loss"]
            if number:
                seconds["ours"].append(time.perf_counter() - begun)
                seconds["plain"].append(plain_seconds)
        following.cancel()
    return {"seconds": seconds, "losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train_job.add_sizes(parser)
    parser.add_argument("--threads", type=int, default=train_job.cores())
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps per turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    args = parser.parse_args()
    with train_job.job(args, 1, args.threads) as spec:
        result = report(args, spec, train_job.run(spec, measure, rounds=args.rounds, steps=args.steps))
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def report(args: argparse.Namespace, job: TrainSpec, measured: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second of both, their ratio, and what they were measured on."""
    tokens = job.plan.batch_tokens * args.steps
    speeds = {name: [tokens / s for s in seconds] for name, seconds in measured["seconds"].items()}
    pairs = [ours / plain for ours, plain in zip(speeds["ours"], speeds["plain"], strict=True)]
    if abs(measured["losses"]["ours"] - measured["losses"]["plain"]) > 1e-2:
        sys.exit(f"the two sides do not train the same model: losses {measured['losses']}")
    return {
        "benchmark": "train_step",
        "tokens_per_second": {name: round(statistics.median(values), 1) for name, values in speeds.items()},
        "ratio": round(statistics.median(speeds["ours"]) / statistics.median(speeds["plain"]), 3),
        "ratio_per_round": [round(pair, 3) for pair in pairs],
        "last_loss": measured["losses"],
        "setting": train_job.sizes(args, job.config),
        "environment": describe(),
    }


if __name__ == "__main__":
    main()
