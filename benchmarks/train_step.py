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
import hashlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from kit19_ray.artifacts import manifest, packed_shards
from kit19_ray.config.schema import TrainConfig
from kit19_ray.io import storage
from kit19_ray.lm import pretrained
from kit19_ray.train import batches
from kit19_ray.train import spec as planning
from kit19_ray.train.spec import TrainSpec
from kit19_ray.utils import ray_session

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


def build_model(config: TrainConfig, seq_len: int) -> Any:
    """The model that both sides train."""
    return pretrained.build_gpt_neox(
        hidden_size=config.model.hidden_size,
        layers=config.model.layers,
        heads=config.model.heads,
        intermediate_size=config.model.intermediate_size,
        vocab_size=VOCAB,
        seq_len=seq_len,
        eos_token_id=0,
        pad_token_id=0,
        seed=SEED,
    )


class PlainLoop:
    """The peer, an actor with default settings: a PyTorch loop as one would write it."""

    def __init__(self, job: TrainSpec) -> None:
        import torch

        torch.set_num_threads(int(job.config.cpus_per_worker))
        self._job, self._step = job, 0
        self._model = build_model(job.config, job.plan.seq_len).train()
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
        for part in batches.micro_batches(rows, plan.micro_batch_size):
            columns = {k: torch.from_numpy(v.astype(np.int64)) for k, v in self._split.rows(part).items()}
            logits = self._model(
                input_ids=columns["input_ids"], position_ids=columns["position_ids"], use_cache=False
            ).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].reshape(-1, VOCAB), columns["labels"][:, 1:].reshape(-1), reduction="sum"
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

    job: TrainSpec = settings["job"]
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
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--micro-batch-size", type=int, default=8)
    parser.add_argument("--zero-stage", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps per turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the result as JSON here")
    args = parser.parse_args()
    config = TrainConfig.model_validate(
        {
            "workers": 1,
            "cpus_per_worker": args.threads,
            "zero_stage": args.zero_stage,
            "batch_size": args.batch_size,
            "micro_batch_size": args.micro_batch_size,
            "learning_rate": 1e-3,
            "warmup_ratio": 0,
            "min_learning_rate_ratio": 1,
            "epochs": 1000,
            "samples": 0,
            "trackers": [],
        }
    )
    with tempfile.TemporaryDirectory() as folder, ray_session.connected(args.threads):
        job = TrainSpec(
            out=f"file://{folder}/train-benchmark",
            data=build_data(f"file://{folder}", args.seq_len),
            config=config,
            plan=planning.make(config, ROWS, args.seq_len),
            use_gpu=False,
            seed=SEED,
            vocab_size=VOCAB,
            eos_token_id=0,
            pad_token_id=0,
        )
        result = report(args, job, run_in_ray(job, args.rounds, args.steps, folder))
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def run_in_ray(job: TrainSpec, rounds: int, steps: int, folder: str) -> dict[str, Any]:
    """One Ray Train worker, started as the stage starts its own."""
    import ray.train
    import ray.train.torch

    from kit19_ray.train.fit import worker_environment

    api: Any = ray.train
    fitted = api.torch.TorchTrainer(
        measure,
        train_loop_config={"job": job, "rounds": rounds, "steps": steps},
        torch_config=api.torch.TorchConfig(backend="gloo"),
        scaling_config=api.ScalingConfig(num_workers=1, resources_per_worker={"CPU": job.config.cpus_per_worker}),
        run_config=api.RunConfig(
            name="benchmark", storage_path=folder, worker_runtime_env={"env_vars": worker_environment(job)}
        ),
    )
    measured: dict[str, Any] = fitted.fit().return_value
    return measured


def report(args: argparse.Namespace, job: TrainSpec, measured: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second of both, their ratio, and what they were measured on."""
    import deepspeed
    import ray
    import torch
    import transformers

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
        "setting": {
            "parameters": sum(p.numel() for p in build_model(job.config, job.plan.seq_len).parameters()),
            "seq_len": args.seq_len,
            "batch_size": args.batch_size,
            "micro_batch_size": args.micro_batch_size,
            "zero_stage": args.zero_stage,
            "threads": args.threads,
            "precision": "fp32",
        },
        "environment": {
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "ray": ray.__version__,
            "deepspeed": deepspeed.__version__,
            "transformers": transformers.__version__,
            "load_average": os.getloadavg(),
        },
    }


if __name__ == "__main__":
    main()
