"""Workers without Ray: processes with a gloo group, forked from one that has imported torch and DeepSpeed already."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from kit19_ray.artifacts import manifest, metrics_log
from kit19_ray.config.schema import Config
from kit19_ray.train import spec as planning
from kit19_ray.train.spec import TrainSpec

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["torch", "deepspeed", "peft", "transformers", "kit19_ray.train.worker"])


class RankFailed(Exception):
    """What a rank raised, as text; `errors` has all of them by rank."""

    def __init__(self, errors: dict[int, str]) -> None:
        super().__init__("\n".join(f"rank {rank}: {text}" for rank, text in sorted(errors.items())))
        self.errors = errors


def run_ranks(world: int, function: Callable[..., Any], *args: Any, seconds: float = 240) -> list[Any]:
    """`function(*args)` on `world` ranks; what each returns. None for a rank that ended without a word.

    Raises:
        RankFailed: a rank raised, or was still there after `seconds`.
    """
    with tempfile.NamedTemporaryFile(prefix="kit19-ranks-", delete=False) as meeting:
        os.unlink(meeting.name)
    pipes = [_forks.Pipe(duplex=False) for _ in range(world)]
    processes = [
        _forks.Process(target=_rank, args=(rank, world, meeting.name, pipes[rank][1], function, args))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    until, results, errors = time.monotonic() + seconds, [None] * world, {}
    for rank, (receiver, _) in enumerate(pipes):
        if not receiver.poll(max(0.0, until - time.monotonic())):
            errors[rank] = "it was still running"
            continue
        with contextlib.suppress(EOFError):
            kind, value = receiver.recv()
            if kind == "ok":
                results[rank] = value
            else:
                errors[rank] = value
    for process in processes:
        if rank_alive := process.is_alive():
            process.join(5)
        if rank_alive and process.is_alive():
            process.kill()
        process.join()
    if errors:
        raise RankFailed(errors)
    return results


def _rank(rank: int, world: int, meeting: str, sender: Connection, function: Any, args: Any) -> None:
    import torch
    import torch.distributed as dist

    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank), "TORCHDYNAMO_DISABLE": "1"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    try:
        sender.send(("ok", function(*args)))
    except BaseException:  # noqa: BLE001 - the test wants to see it
        sender.send(("error", traceback.format_exc()))
    sender.close()
    os._exit(0)  # a group whose other ranks are gone would be waited for


def spec_of(config: Config, data: str, name: str = "train-x") -> TrainSpec:
    """What the stage hands to its workers, for a prefix `name` below the config's root."""
    built = manifest.require(data, "data")
    rows = built["splits"]["train"]["rows"]
    return TrainSpec(
        out=f"{config.root}/{name}",
        data=data,
        config=config.train,
        plan=planning.make(config.train, rows, built["seq_len"]),
        use_gpu=False,
        seed=config.seed,
        vocab_size=built["vocab_size"],
        eos_token_id=built["eos_token_id"],
        pad_token_id=built["pad_token_id"],
        prompt=built["prompt"],
    )


def train(spec: TrainSpec, stop_at: int | None = None) -> dict[str, Any]:
    """A whole run, or one that is asked to stop after step `stop_at`; runs on every rank."""
    import torch

    from kit19_ray.train.agreement import Agreement
    from kit19_ray.train.flags import SAVE, STOP
    from kit19_ray.train.trainer import Trainer
    from kit19_ray.train.worker import prepare_process

    prepare_process(spec)
    with Trainer(spec, torch.device("cpu"), Agreement("127.0.0.1", 60)) as trainer:
        take = trainer.train_step

        def counted(read: Any) -> float:
            rate = take(read)
            if trainer.state.step == stop_at:
                trainer._interruptions._flags |= SAVE | STOP
            return rate

        trainer.train_step = counted  # type: ignore[method-assign]
        return trainer.run()


def losses(spec: TrainSpec) -> dict[int, float]:
    """Loss by step, as metrics.jsonl has it."""
    return {line["step"]: line["loss"] for line in metrics_log.read(spec.out) if "loss" in line}
