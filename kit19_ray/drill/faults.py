"""What a drill does to a worker, from within: the training itself has no hook for it and is the one users run.

`loop` is what Ray Train calls in each worker's process in the place of the stage's own function. It wraps the one
function at which the fault is to happen and then calls that function. The victim leaves word in the run's prefix just
before it strikes, so that a worker that is started again leaves it alone.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, NoReturn, TypedDict

from kit19_ray.artifacts import checkpoint, run_request
from kit19_ray.artifacts.stage_manifests import Stopped, TrainOutput
from kit19_ray.drill.save_faults import OF_RANK_0, Point, kill_while_saving
from kit19_ray.errors import StorageError, UserError
from kit19_ray.io import storage
from kit19_ray.train.spec import TrainSpec
from kit19_ray.utils.json_types import Json

_PATIENCE_SECONDS = 120.0
STRUCK, DETECTED = "struck.json", "detected.json"  # in the run's prefix

Kind = Literal["kill", "error", "hang", "nan", "store", "corrupt", "stop", "notice", "slow"]


class Word(TypedDict):
    """STRUCK and DETECTED: when it was, in Unix time, and after which step (DETECTED: 0)."""

    time: float
    step: int


@dataclass(frozen=True)
class Fault:
    """What is done.

    Attributes:
        kind: slow: every step takes `seconds` longer, at every rank. kill: SIGKILL. error: an exception while the
            others are in a collective. hang: never comes back. nan: a gradient that is none. store: the store takes
            nothing for `seconds`, at every rank. corrupt: the newest checkpoint is cut in half, then SIGKILL. stop: as
            SIGTERM to the driver. notice: the node is said to be taken away, and is, by SIGKILL, `seconds` later.
        rank: the victim; where there is no such rank, the last.
        step: after which it is done; with `point`, the step whose checkpoint it is done in.
        point: of the checkpoint's writing.
    """

    kind: Kind = "slow"
    rank: int = 1
    step: int = 8
    point: Point | None = None
    seconds: float = 0.0


def leave(out: str, name: str, step: int) -> None:
    """Writes STRUCK or DETECTED."""
    word: Word = {"time": time.time(), "step": step}
    storage.write_text(storage.join(out, name), json.dumps(word))


def read(out: str, name: str) -> Word | None:
    """STRUCK or DETECTED, None where nobody has left it."""
    path = storage.join(out, name)
    if not storage.exists(path):
        return None
    found: Word = json.loads(storage.read_text(path))
    return found


def loop(settings: Json) -> TrainOutput | Stopped | dict[str, UserError]:
    """The stage's own worker function, with the fault of the settings.

    Args:
        settings: {"spec": TrainSpec, "fault": Fault}.
    """
    import torch.distributed as dist

    from kit19_ray.train.worker import train_loop_per_worker

    spec: TrainSpec = settings["spec"]
    fault: Fault = settings["fault"]
    _count_steps(fault.seconds if fault.kind == "slow" else 0.0)
    if read(spec.out, STRUCK) is None:
        rank, last = dist.get_rank(), dist.get_world_size() - 1
        victim = 0 if fault.point in OF_RANK_0 else min(fault.rank, last)
        arm(fault, spec.out, rank == victim)
    return train_loop_per_worker(settings)


def arm(fault: Fault, out: str, victim: bool) -> None:
    """Wraps, in this process, what the fault is to happen in."""
    if fault.kind == "slow":
        return
    if fault.point is not None:
        if victim:
            _die_while_saving(fault.point, fault.step, out)
        return
    if fault.kind == "nan":
        if victim:
            _break_a_gradient(out, fault.step)
        return
    if victim or fault.kind == "store":
        _after_each_step(lambda step: _strike(fault, out, victim) if step == fault.step else None)


def _die_while_saving(point: Point, step: int, out: str) -> None:
    def die() -> None:
        leave(out, STRUCK, _reached[0])
        _die()

    # The steps of so small a model would be over before its checkpoint is sent: the victim goes one step further and
    # waits for its end.
    _after_each_step(lambda at: time.sleep(_PATIENCE_SECONDS) if at == step + 1 else None)
    kill_while_saving(point, step, die)


_reached = [0]  # the last step of this process


def _count_steps(seconds: float) -> None:
    """Keeps `_reached`, and makes each step take `seconds` longer."""

    def counted(step: int) -> None:
        _reached[0] = step
        time.sleep(seconds)

    _after_each_step(counted)


def _after_each_step(action: Callable[[int], None]) -> None:
    from kit19_ray.train.trainer import Trainer

    take = Trainer.train_step

    def stepped(self: Trainer, *args: Any) -> float:
        rate = take(self, *args)
        action(self.state.step)
        return rate

    setattr(Trainer, "train_step", stepped)  # noqa: B010 - a method, for mypy


def _strike(fault: Fault, out: str, victim: bool) -> None:
    if victim:
        leave(out, STRUCK, _reached[0])
    if fault.kind == "kill":
        _die()
    elif fault.kind == "error":
        raise RuntimeError("the drill's error")
    elif fault.kind == "hang":
        time.sleep(24 * 3600)
    elif fault.kind == "store":
        _close_the_store(fault.seconds)
    elif fault.kind == "corrupt":
        _cut_the_newest(out)
        _die()
    elif fault.kind == "stop":
        run_request.write(out, "stop")
        _let_it_be_seen(out)
    elif fault.kind == "notice":
        _announce(out, fault.seconds)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives SIGKILL")


def _let_it_be_seen(out: str) -> None:
    """Requests and notices are looked for now and then: a training of tiny steps would be over before."""
    from kit19_ray.train import interruptions

    time.sleep(3 * interruptions._POLL_SECONDS[out.split("://")[0]])


def _announce(out: str, seconds: float) -> None:
    """The node of this worker is to go, and goes."""
    import threading

    from kit19_ray.train import interruptions

    interruptions.node_is_draining = lambda: True
    threading.Timer(seconds, _die).start()
    _let_it_be_seen(out)
    _after_each_step(lambda _: time.sleep(1.0))  # there are steps left when it goes


def _close_the_store(seconds: float) -> None:
    """For `seconds` every checkpoint that this process sends is refused."""
    write, until = storage.write_stream, time.monotonic() + seconds

    def refusing(uri: str, source: BinaryIO) -> None:
        if time.monotonic() < until:
            raise StorageError("the drill has closed the store")
        write(uri, source)

    storage.write_stream = refusing


def _cut_the_newest(out: str) -> None:
    """Waits for the checkpoint under way and cuts one of its shards in half."""
    for _ in range(600):
        at = checkpoint.folders(out)[0]
        index = checkpoint.read_index(out, at)
        if index is not None:
            break
        time.sleep(0.1)
    else:
        raise RuntimeError("no checkpoint to cut")
    path = storage.join(at.uri(out), index["shards"][-1]["path"])
    data = storage.read_bytes(path)
    storage.write_bytes(path, data[: len(data) // 2])


def _break_a_gradient(out: str, step: int) -> None:
    """This rank's gradient of one step is no number."""
    from kit19_ray.train.engine import TrainEngine

    take, count = TrainEngine.step, [0]

    def broken(self: Any, *args: Any) -> Any:
        count[0] += 1
        if count[0] != step:
            return take(self, *args)
        leave(out, STRUCK, step)
        weight = next(p for p in self.module.parameters() if p.requires_grad)
        handle = weight.register_hook(lambda gradient: gradient * float("nan"))
        try:
            return take(self, *args)
        finally:
            handle.remove()

    setattr(TrainEngine, "step", broken)  # noqa: B010 - as above
