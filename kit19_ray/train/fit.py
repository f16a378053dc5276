"""Ray Train: starts the workers, starts them again when they fail, says in one message why they ended."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from kit19_ray.artifacts.stage_manifests import Stopped, TrainOutput
from kit19_ray.config.schema import TrainConfig
from kit19_ray.errors import TrainError, UserError
from kit19_ray.io import storage
from kit19_ray.redaction import redacted
from kit19_ray.train.candidate_scorer import CheckpointScorer, Evaluate
from kit19_ray.train.progress import watching
from kit19_ray.train.spec import TrainSpec
from kit19_ray.utils import ray_session
from kit19_ray.utils.json_types import Json

FAILURE = "failure.txt"  # the traceback of the run's last failure
# Ray's own look at NCCL's state: a collective that some ranks never join ends the attempt instead of waiting for it.
_HANG_DETECTOR = {"RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR": "1", "RAY_TRAIN_NCCL_RAS_ACTION": "fail"}


def fit(
    spec: TrainSpec,
    loop: Callable[[Json], Any] | None = None,
    settings: Json | None = None,
    callbacks: Sequence[Any] = (),
    resize_seconds: float = 60.0,
    evaluate: Evaluate | None = None,
) -> TrainOutput | Stopped:
    """Runs the workers to the end and returns what rank 0 says of the run: see `worker.train_loop_per_worker`.

    Args:
        loop: what the workers run in the place of that function, such as a drill's.
        settings: for `loop`, beside the spec.
        callbacks: Ray Train's, called in its controller.
        resize_seconds: between looks at whether an elastic run could have more workers.
        evaluate: scores a checkpoint's model, where the config's `train.best` wants it.

    Raises:
        UserError: a mistake of the user that a worker found.
        RuntimeError: a worker failed more often than train.max_failures; the traceback is in the prefix.
    """
    import ray.train
    import ray.train.torch

    from kit19_ray.train.worker import train_loop_per_worker

    api: Any = ray.train  # its types are those of Train v1, which is not what runs
    train = spec.config
    if spec.use_gpu:
        for name, value in _HANG_DETECTOR.items():
            os.environ.setdefault(name, value)
    # What Ray itself keeps of a run is worth nothing to us: the checkpoints are ours, in the prefix. In a folder of its
    # own each time, it takes up nothing and carries no credentials to the workers.
    kept = tempfile.mkdtemp(prefix="kit19-ray-train-")
    trainer = api.torch.TorchTrainer(
        loop or train_loop_per_worker,
        train_loop_config={"spec": spec, **(settings or {})},
        torch_config=api.torch.TorchConfig(
            backend="nccl" if spec.use_gpu else "gloo", timeout_s=int(60 * train.timeout_minutes)
        ),
        scaling_config=api.ScalingConfig(
            num_workers=(train.min_workers, train.workers) if train.elastic else train.workers,
            use_gpu=spec.use_gpu,
            resources_per_worker={"CPU": train.cpus_per_worker} | ({"GPU": 1} if spec.use_gpu else {}),
            elastic_resize_monitor_interval_s=resize_seconds,
        ),
        run_config=api.RunConfig(
            name=spec.out.rsplit("/", 1)[1],
            storage_path=kept,
            failure_config=api.FailureConfig(max_failures=train.max_failures),
            callbacks=list(callbacks),
            worker_runtime_env={"env_vars": worker_environment(spec)},
        ),
        validation_config=None
        if evaluate is None
        # The task waits for actors that have CPUs of their own.
        else api.ValidationConfig(CheckpointScorer(spec, evaluate), ray_remote_kwargs={"num_cpus": 0}),
    )
    try:
        with watching(spec):
            result = trainer.fit()
    except api.TrainingFailedError as failure:
        raise explained(failure, spec) from None
    finally:
        shutil.rmtree(kept, ignore_errors=True)
    made: Any = result.return_value
    said = made if isinstance(made, dict) else {}
    if isinstance(said.get("error"), UserError):
        raise said["error"]
    if not (said.get("files") or "stopped" in said):
        raise RuntimeError(f"the workers ended without an export: {made!r}")
    finished: TrainOutput | Stopped = made
    return finished


def worker_environment(spec: TrainSpec) -> dict[str, str]:
    """Variables that must be set before a worker imports torch and DeepSpeed."""
    variables = {
        "DS_ACCELERATOR": "cuda" if spec.use_gpu else "cpu",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not spec.config.compile:
        variables["TORCHDYNAMO_DISABLE"] = "1"  # importing the compiler takes seconds
    return variables


def use_gpu(train: TrainConfig) -> bool:
    """Whether the workers get GPUs, after a look at what the cluster has or may start.

    Raises:
        TrainError: the local cluster can never hold the workers.
    """
    return ray_session.require(
        "train.min_workers" if train.elastic else "train.workers",
        train.min_workers or train.workers,
        train.cpus_per_worker,
        train.use_gpu,
        "lower train.workers or train.cpus_per_worker",
        TrainError,
        at_most=_at_most(),
    )


def _at_most() -> dict[str, float]:
    """What the cluster's autoscaler could bring it to; {} without one."""
    from ray._private import state

    found = state.state.get_max_resources_from_cluster_config()
    return dict(found or {})


def explained(failure: Exception, spec: TrainSpec) -> Exception:
    """One message for what went wrong in the workers; the tracebacks go to the run's prefix."""
    workers: dict[int, Exception] = getattr(failure, "worker_failures", {})
    path = storage.join(spec.out, FAILURE)
    storage.write_text(path, redacted(str(failure)))
    for rank, error in sorted(workers.items()):
        cause = getattr(error, "cause", None) or error.__cause__
        found = error if isinstance(error, UserError) else cause
        if isinstance(found, UserError):
            return found
        if "out of memory" in str(error).lower():
            return TrainError(
                f"worker {rank} ran out of memory: {_last_line(error)}",
                hint="lower train.micro_batch_size, set train.gradient_checkpointing=true, or raise train.zero_stage",
            )
    said = {_last_line(error): f"worker {_rank(error, rank)}: {_last_line(error)}" for rank, error in workers.items()}
    return RuntimeError(f"training failed: {'; '.join(said.values()) or _last_line(failure)} (tracebacks: {path})")


def _rank(error: Exception, rank: int) -> int:
    """The rank whose error it is: of one that all agreed on, the one that had it."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    return int(getattr(cause, "rank", rank))


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
