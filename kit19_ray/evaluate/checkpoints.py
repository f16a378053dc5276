"""Scores the checkpoints of a training under way: the task of `train.best`, on what the training leaves free."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from kit19_ray.config.schema import Config, EvaluateConfig, JudgeConfig
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import suites
from kit19_ray.utils.console import say


@dataclass(frozen=True)
class CheckpointScoring:
    """Called with a model and a root, scores the model and returns the prefix, which is below the root.

    Attributes:
        config: what `narrowed` gave.
        data: finished data prefix.
    """

    config: Config
    data: str

    def __call__(self, model: str, root: str) -> str:
        from kit19_ray.evaluate import stage

        config = self.config.model_copy(update={"root": root, "evaluate": _placed(self.config, _resources())})
        return stage.run(config, model, self.data if config.evaluate.held_out else None)

    def require(self) -> None:
        """Checks that the harness has the task and the cluster room beside the training; Ray must be connected.

        Raises:
            EvaluateError: not so. A cluster that RAY_ADDRESS names may grow.
        """
        from kit19_ray.evaluate import harness

        if self.config.evaluate.tasks:
            harness.names(self.config)
        if (said := lacking(self.config, _resources())) is None:
            return
        if not os.environ.get("RAY_ADDRESS"):
            raise EvaluateError(said, hint="lower train.workers, or set train.best.score=validation_loss")
        say(f"train: {said}; scores wait for it to grow")


def narrowed(config: Config, held_out: Collection[str]) -> Config:
    """The config that scores a checkpoint: the one task, as the evaluate section has it scored.

    Args:
        held_out: tasks of the data prefix. One that has the name of a task asked for of the harness gives way to it.
    """
    wanted = config.train.best
    task = str(wanted.task).partition("@")[0]
    rows = task in held_out and task not in suites.expand(config.evaluate.tasks)
    section = {
        "tasks": [] if rows else [task],
        "held_out": rows,
        "limit": wanted.limit or config.evaluate.limit,
        "model": None,
        "endpoint": None,
        "judge": JudgeConfig(),
    }
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=section)})


def lacking(config: Config, have: dict[str, float]) -> str | None:
    """What the cluster lacks to score while it trains, in a sentence; None where there is room.

    Args:
        have: its resources, as Ray names them.
    """
    train, section = config.train, config.evaluate
    placed = _placed(config, have)
    cpus = train.workers * train.cpus_per_worker + section.workers * (placed.cpus_per_worker or 1)
    gpus = _training_gpus(config, have) + (section.workers * section.gpus_per_worker if placed.use_gpu else 0)
    for name, number in (("CPU", cpus), ("GPU", gpus)):
        if number > have.get(name, 0):
            return (
                f"train.best.score={train.best.score} is made beside the training, which takes {number:g} {name}s in "
                f"all; the Ray cluster has {have.get(name, 0):g}"
            )
    return None


def _placed(config: Config, have: dict[str, float]) -> EvaluateConfig:
    """The evaluate section with actors that fit beside the training's workers: on GPUs that it leaves, else on CPUs."""
    train, section = config.train, config.evaluate
    left = have.get("GPU", 0) - _training_gpus(config, have)
    gpu = section.use_gpu if section.use_gpu is not None else left >= section.workers * section.gpus_per_worker
    free = have.get("CPU", 0) - train.workers * train.cpus_per_worker
    cpus = section.cpus_per_worker or (1 if gpu else max(1, int(free // section.workers)))
    return section.model_copy(update={"use_gpu": gpu, "cpus_per_worker": cpus})


def _training_gpus(config: Config, have: dict[str, float]) -> int:
    used = bool(have.get("GPU")) if config.train.use_gpu is None else config.train.use_gpu
    return config.train.workers if used else 0


def _resources() -> dict[str, float]:
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found
