"""Training speed of two workers of the train stage beside Hugging Face's Trainer with DeepSpeed in two processes.

    python benchmarks/train_trainer.py [--seq-len 256] [--micro-batch-size 8] [--zero-stage 1] [--rounds 7]

Both train the same GPT-NeoX from the same weights on the same packed rows, each step's the same, with the same global
batch, micro-batch, ZeRO stage, optimizer (torch's fused AdamW), clipping and constant learning rate, in fp32 over gloo,
with one thread a process. Ours is what `kit19 train` runs: two Ray Train workers and the stage's own loop, with its
metrics, prefetch and agreement before each step. The peer is `transformers.Trainer` with a DeepSpeed config, started
by torch's launcher: its rows lie in memory as tensors, and it neither logs nor saves (`benchmarks/trainer_peer.py`).

The loss is the same number on both sides: the sum over the learned tokens of the global batch, over their count. Each
step's must agree to 1e-4 of it, or the benchmark fails. The two take turns in one run, so that whatever else the
machine does hits both; the ratio is of the medians over the rounds. Tokens include padding, of which there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import train_job
from environment import describe

WORKERS = 2
TOLERANCE = 1e-4  # of a step's loss
_PEER_SECONDS = 300.0


class Turns:
    """Our side's turns: after every `steps` optimizer steps the workers wait until the peer has made as many."""

    def __init__(self, folder: Path, steps: int, rounds: int) -> None:
        self._folder, self._steps, self._rounds, self._begun = folder, steps, rounds, 0.0
        self.seconds: list[float] = []

    def before(self, step: int) -> None:
        """Is called before step `step`, from 0, of a run that has one step more than the turns."""
        if step % self._steps or len(self.seconds) == self._rounds:
            return
        if step:  # ours comes first in each round, so that neither side ends while the other is measured
            self.seconds.append(time.perf_counter() - self._begun)
            (self._folder / f"ours-{len(self.seconds)}").touch()  # the peer's go
            self._wait(self._folder / f"peer-{len(self.seconds)}")
        self._begun = time.perf_counter()

    def _wait(self, there: Path) -> None:
        until = time.monotonic() + _PEER_SECONDS
        while not there.exists():
            if time.monotonic() > until:
                raise TimeoutError(f"the peer's turn did not end: {self._folder / 'peer.log'}")
            time.sleep(0.02)


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Runs in each Ray Train worker: the stage's own training, held up while it is the peer's turn."""
    import ray.util
    import torch

    from kit19_ray.train import trainer, worker
    from kit19_ray.train.agreement import Agreement

    spec = settings["spec"]
    worker.prepare_process(spec)
    turns = Turns(Path(settings["folder"]), settings["steps"], settings["rounds"])
    losses: list[float] = []
    with trainer.Trainer(spec, torch.device("cpu"), Agreement(ray.util.get_node_ip_address(), 600)) as run:
        run.prepare()
        take = run.train_step

        def taken(read: Any) -> float:
            turns.before(run.state.step)
            before = run.state.loss
            rate = take(read)
            losses.append((run.state.loss - before) / read.labels)
            return rate

        run.train_step = taken
        run.train()
    return {"seconds": turns.seconds, "losses": losses, "threads": torch.get_num_threads()}


@contextmanager
def peer(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The Trainer's processes, with one thread each, which is the launcher's default."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORKERS)]
    script = Path(__file__).with_name("trainer_peer.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    with (folder / "peer.log").open("wb") as log:
        process = subprocess.Popen([*command, str(script), str(folder)], env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    train_job.add_sizes(parser)
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps per turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side that count; one is made before")
    args = parser.parse_args()
    turns = args.rounds + 1  # the first is for warming up
    whole = turns * args.steps
    more = {"max_steps": whole + 1, "eval_every": whole + 1}
    with (
        tempfile.TemporaryDirectory(prefix="kit19-benchmark-") as name,
        train_job.job(args, WORKERS, 1, **more) as spec,
    ):
        folder = Path(name)
        (folder / "spec.pickle").write_bytes(pickle.dumps((spec, turns, args.steps)))
        with peer(folder) as process:
            ours = train_job.run(spec, measure, folder=name, steps=args.steps, rounds=turns)
            if process.wait(_PEER_SECONDS):
                sys.exit((folder / "peer.log").read_text(errors="replace")[-4000:])
        theirs = json.loads((folder / "peer.json").read_text())
        print(json.dumps(report(args, spec, ours, theirs), indent=1))


def report(args: argparse.Namespace, spec: Any, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second of both, their ratio, and how far the losses are apart."""
    pairs = list(zip(ours["losses"], theirs["losses"]))  # ours has one step more
    apart = max(abs(one / other - 1) for one, other in pairs)
    if apart > TOLERANCE:
        sys.exit(f"the two sides do not train the same: losses {pairs}")
    tokens = spec.plan.batch_tokens * args.steps
    sides = {"ours": ours, "trainer": theirs}
    speeds = {name: [tokens / seconds for seconds in side["seconds"][1:]] for name, side in sides.items()}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "benchmark": "train_trainer",
        "tokens_per_second": {name: round(value, 1) for name, value in medians.items()},
        "ratio": round(medians["ours"] / medians["trainer"], 3),
        "ratio_per_round": [round(one / other, 3) for one, other in zip(speeds["ours"], speeds["trainer"])],
        "losses_apart": apart,
        "last_loss": {"ours": pairs[-1][0], "trainer": pairs[-1][1]},
        "peer": {key: theirs[key] for key in ("distributed", "engine", "threads", "ranks")},
        "setting": train_job.sizes(args, spec.config),
        "environment": describe(),
    }


if __name__ == "__main__":
    main()
