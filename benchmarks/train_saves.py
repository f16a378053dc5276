"""What a checkpoint costs the training when S3 takes 50 MB/s: ours beside the same one awaited to its end.

    python benchmarks/train_saves.py [--megabytes-per-second 50] [--steps 10] [--rounds 3]

One worker of the train stage, in the stage's own loop, by turns of `--steps` optimizer steps, which is the save
interval: without a checkpoint; with one that is begun before the first step and written beside the steps, as `kit19
train` does; with the same one, awaited until its index is in the store, before the first step. A checkpoint has the
weights and both moments in float32, 12 bytes a parameter, and goes to an S3 server on loopback whose line is throttled.

Two figures: `standing` is how long the loop does not step (the copy of the state; in the awaited turns all of the
save). `stall` is the whole of it, how much longer the turn is than one without a checkpoint, so that steps which are
slowed by hashing and sending count. Both are medians over the rounds, given in seconds and as a share of the interval,
which is the turn without a checkpoint. The server is a process on the same machine: the worker computes on one thread,
the server has what is left. The CPU seconds say what a checkpoint takes of either beyond a turn without one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import psutil
import slow_s3
import train_job
from environment import describe

KINDS = ("none", "beside", "awaited")


class Turns:
    """Begins and ends the turns of a training, and makes the checkpoints.

    Attributes:
        seconds, standing, worker_cpu, server_cpu: seconds by kind, a figure for each turn; see the module's text.
        awaited: until the index of an awaited checkpoint was in the store.
    """

    def __init__(self, run: Any, steps: int, server: int) -> None:
        self._run, self._steps, self._server = run, steps, psutil.Process(server)
        self.seconds, self.standing, self.worker_cpu, self.server_cpu = ({kind: [] for kind in KINDS} for _ in range(4))  # type: tuple[dict[str, list[float]], ...]
        self.awaited: list[float] = []
        self._stood = 0.0
        self._marks = self._now()

    def before(self, step: int) -> None:
        """Is called before step `step`, from 0, of a run that has one step more than the turns."""
        number, at = divmod(step, self._steps)
        if at:
            return
        if number:
            self._end(KINDS[(number - 1) % len(KINDS)])
        kind = KINDS[number % len(KINDS)]
        self._marks = self._now()
        if kind != "none":
            self._run._save()  # what the loop does when a checkpoint is due
        if kind == "awaited":
            self._run._saver.wait()
            self.awaited.append(time.perf_counter() - self._marks[0])
        self._stood = time.perf_counter() - self._marks[0]

    def _end(self, kind: str) -> None:
        if self._run._saver.busy:
            raise RuntimeError("a checkpoint took longer than the turn: raise --steps")
        seconds, worker, server = (now - then for now, then in zip(self._now(), self._marks))
        self.seconds[kind].append(seconds)
        self.standing[kind].append(self._stood)
        self.worker_cpu[kind].append(worker)
        self.server_cpu[kind].append(server)

    def _now(self) -> tuple[float, float, float]:
        server = self._server.cpu_times()
        return time.perf_counter(), time.process_time(), server.user + server.system


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Runs in the Ray Train worker: the stage's own training, with a checkpoint at the beginning of some turns."""
    import ray.util
    import torch

    from kit19_ray.train import trainer, worker
    from kit19_ray.train.agreement import Agreement

    spec = settings["spec"]
    worker.prepare_process(spec)
    with trainer.Trainer(spec, torch.device("cpu"), Agreement(ray.util.get_node_ip_address(), 600)) as run:
        run.prepare()
        turns = Turns(run, settings["steps"], settings["server"])
        take = run.train_step

        def taken(read: Any) -> float:
            turns.before(run.state.step)
            return take(read)

        run.train_step = taken
        run.train()
        bytes_ = sum(4 * 3 * len(piece) for piece in run._engine.pieces())
    return {
        "seconds": turns.seconds, "standing": turns.standing, "worker_cpu": turns.worker_cpu,
        "server_cpu": turns.server_cpu, "awaited": turns.awaited, "bytes": bytes_,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train_job.add_sizes(parser)
    parser.add_argument("--megabytes-per-second", type=float, default=50.0)
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps per turn: the save interval")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind that count; one is made before")
    args = parser.parse_args()
    whole = (args.rounds + 1) * len(KINDS) * args.steps
    more = {"max_steps": whole + 1, "eval_every": whole + 1}
    with (
        slow_s3.serving(args.megabytes_per_second) as (root, server),
        train_job.job(args, 1, 1, root, **more) as spec,
    ):
        print(json.dumps(report(args, spec, train_job.run(spec, measure, steps=args.steps, server=server)), indent=1))


def report(args: argparse.Namespace, spec: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Seconds and shares of the interval."""
    turns = {kind: values[1:] for kind, values in measured["seconds"].items()}
    interval = statistics.median(turns["none"])

    def more(of: str, kind: str) -> float:
        """Seconds above those of the turn without a checkpoint of the same round."""
        pairs = zip(measured[of][kind][1:], measured[of]["none"][1:])
        return statistics.median(turn - without for turn, without in pairs)

    figures = {}
    for kind in KINDS[1:]:
        stall, standing = more("seconds", kind), statistics.median(measured["standing"][kind][1:])
        figures[kind] = {
            "standing_seconds": round(standing, 3),
            "standing_share": round(standing / interval, 4),
            "stall_seconds": round(stall, 3),
            "stall_share": round(stall / interval, 4),
            "worker_cpu_seconds": round(more("worker_cpu", kind), 3),
            "server_cpu_seconds": round(more("server_cpu", kind), 3),
        }
    return {
        "benchmark": "train_saves",
        "interval_seconds": round(interval, 2),
        **figures,
        "checkpoint_megabytes": round(measured["bytes"] / 1e6, 1),
        "awaited_megabytes_per_second": round(measured["bytes"] / 1e6 / statistics.median(measured["awaited"][1:]), 1),
        "turn_seconds": {kind: [round(value, 2) for value in values] for kind, values in turns.items()},
        "setting": train_job.sizes(args, spec.config) | {"megabytes_per_second": args.megabytes_per_second},
        "environment": describe(),
    }


if __name__ == "__main__":
    main()
