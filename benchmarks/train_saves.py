"""What a checkpoint costs the training when S3 takes 50 MB/s: ours beside the same one awaited to its end.

    python benchmarks/train_saves.py [--megabytes-per-second 50] [--steps 8] [--rounds 3]

One worker of the train stage, in the stage's own loop, by turns of `--steps` optimizer steps, which is the save
interval: without a checkpoint; with one that is begun before the first step and written beside the steps, as `kit19
train` does; with the same one, awaited until its index is in the store, before the first step. A checkpoint has the
weights and both moments in float32, 12 bytes a parameter, and goes to an S3 server on loopback whose line is throttled.

Two figures: `standing` is how long the loop does not step (the copy of the state; in the awaited turns all of the
save). `stall` is the whole of it, how much longer the turn is than one without a checkpoint, so that steps which are
slowed by hashing and sending count. Both are medians over the rounds, given in seconds and as a share of the interval,
which is the turn without a checkpoint. The server is a process on the same machine: the worker computes on one thread,
the server has what is left.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import slow_s3
import train_job
from environment import describe

KINDS = ("none", "beside", "awaited")


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Runs in the Ray Train worker: the stage's own training, with a checkpoint at the beginning of some turns."""
    import ray.util
    import torch

    from kit19_ray.train import trainer, worker
    from kit19_ray.train.agreement import Agreement

    spec, steps = settings["spec"], settings["steps"]
    worker.prepare_process(spec)
    turns: dict[str, list[float]] = {kind: [] for kind in KINDS}
    standing: dict[str, list[float]] = {kind: [] for kind in KINDS}
    written: list[float] = []
    begun, stood = 0.0, 0.0
    with trainer.Trainer(spec, torch.device("cpu"), Agreement(ray.util.get_node_ip_address(), 600)) as run:
        run.prepare()
        take = run.train_step

        def taken(read: Any) -> float:
            nonlocal begun, stood
            number, at = divmod(run.state.step, steps)
            if at == 0:
                now = time.perf_counter()
                if number:
                    kind = KINDS[(number - 1) % len(KINDS)]
                    turns[kind].append(now - begun)
                    standing[kind].append(stood)
                    if run._saver.busy:
                        raise RuntimeError("a checkpoint took longer than the turn: raise --steps")
                kind = KINDS[number % len(KINDS)]
                begun = time.perf_counter()
                if kind != "none":
                    run._save()  # what the loop does when a checkpoint is due
                if kind == "awaited":
                    run._saver.wait()
                    written.append(time.perf_counter() - begun)
                stood = time.perf_counter() - begun if kind != "none" else 0.0
            return take(read)

        run.train_step = taken
        run.train()
        bytes_ = sum(4 * 3 * len(piece) for piece in run._engine.pieces())
    return {"turns": turns, "standing": standing, "written": written, "bytes": bytes_}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train_job.add_sizes(parser)
    parser.add_argument("--megabytes-per-second", type=float, default=50.0)
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps per turn: the save interval")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind that count; one is made before")
    args = parser.parse_args()
    whole = (args.rounds + 1) * len(KINDS) * args.steps
    more = {"max_steps": whole + 1, "eval_every": whole + 1}
    with (
        slow_s3.serving(args.megabytes_per_second) as root,
        train_job.job(args, 1, 1, root, **more) as spec,
    ):
        print(json.dumps(report(args, spec, train_job.run(spec, measure, steps=args.steps)), indent=1))


def report(args: argparse.Namespace, spec: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Seconds and shares of the interval."""
    turns = {kind: values[1:] for kind, values in measured["turns"].items()}
    interval = statistics.median(turns["none"])
    spread = [value / interval - 1 for value in turns["none"]]
    figures = {}
    for kind in KINDS[1:]:
        stall = statistics.median(turn - without for turn, without in zip(turns[kind], turns["none"]))
        standing = statistics.median(measured["standing"][kind][1:])
        figures[kind] = {
            "standing_seconds": round(standing, 3),
            "standing_share": round(standing / interval, 4),
            "stall_seconds": round(stall, 3),
            "stall_share": round(stall / interval, 4),
        }
    if not args.rounds:
        sys.exit("no round counts")
    return {
        "benchmark": "train_saves",
        "interval_seconds": round(interval, 2),
        "interval_spread": [round(value, 4) for value in spread],
        **figures,
        "checkpoint_megabytes": round(measured["bytes"] / 1e6, 1),
        "awaited_megabytes_per_second": round(measured["bytes"] / 1e6 / statistics.median(measured["written"][1:]), 1),
        "turn_seconds": {kind: [round(value, 2) for value in values] for kind, values in turns.items()},
        "setting": train_job.sizes(args, spec.config) | {"megabytes_per_second": args.megabytes_per_second},
        "environment": describe(),
    }


if __name__ == "__main__":
    main()
