"""The train stage: a prefix named by what the weights depend on, filled by Ray Train workers, closed by a manifest."""

from __future__ import annotations

import os
import time
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.config.schema import Config, TrainConfig
from kit19_ray.errors import TrainError, UserError
from kit19_ray.io import lease, storage
from kit19_ray.lm import pretrained
from kit19_ray.train import spec as planning
from kit19_ray.train.progress import watching
from kit19_ray.train.spec import Job, Plan
from kit19_ray.utils import ray_session
from kit19_ray.utils.console import say

VERSION = 1  # of what this stage writes; raise it when equal inputs would give other weights
FAILURE = "failure.txt"  # the traceback of the run's last failure


def uri(config: Config, data_uri: str) -> str:
    """The prefix that `config` trains into on the finished data prefix `data_uri`.

    Raises:
        StorageError: the data prefix is not finished.
    """
    return _uri(config, manifest.require(data_uri, "data"))


def _uri(config: Config, built: dict[str, Any]) -> str:
    read = {key: built[key] for key in ("seq_len", "eos_token_id", "pad_token_id", "vocab_size", "prompt", "splits")}
    identity = {
        "version": VERSION,
        "seed": config.seed,
        "train": config.train.identity(),
        "data": manifest.digest(read),
    }
    return manifest.stage_uri(config.root, "train", identity)


def run(config: Config, data_uri: str) -> str:
    """Trains, or goes on where an interrupted run stopped, and returns the prefix; a finished one is left as it is.

    Raises:
        UserError: what the user can mend: sizes that do not divide, a model that is not there, too few CPUs.
        RuntimeError: a worker failed more often than train.max_failures; the traceback is in the prefix.
    """
    data_uri = storage.normalise(data_uri)
    built = manifest.require(data_uri, "data")
    out = _uri(config, built)
    if manifest.finished(out, "train") is not None:
        say(f"train: {out} is trained already")
        return out
    plan = planning.make(config.train, _rows(built, "train"), built["seq_len"])
    if not _rows(built, "validation"):
        raise TrainError(f"{data_uri} has no validation rows", hint="build it with data.validation above 0")
    _check_model(config.train, built)
    with lease.held(out, "train") as held, ray_session.connected():
        if manifest.finished(out, "train") is not None:
            say(f"train: {out} was trained meanwhile")
            return out
        job = Job(
            out=out,
            data=data_uri,
            config=config.train,
            plan=plan,
            use_gpu=_use_gpu(config.train),
            seed=config.seed,
            vocab_size=built["vocab_size"],
            eos_token_id=built["eos_token_id"],
            pad_token_id=built["pad_token_id"],
        )
        say(f"train: {_describe(job)} -> {out}")
        begun = time.monotonic()
        made = _fit(job)
        held.require()
    manifest.commit(
        out,
        {
            "stage": "train",
            "version": VERSION,
            "export": "export",
            "data": data_uri,
            "prompt": built["prompt"],
            "seed": config.seed,
            "config": config.train.identity(),
            "steps": plan.steps,
            **made,
        },
        known=made["files"],
        without=("checkpoint_",),
    )
    say(
        f"train: validation loss {made['validation_loss_first']:.4f} -> {made['validation_loss']:.4f} in "
        f"{time.monotonic() - begun:.0f} s, {made['tokens_per_second']:,.0f} tokens/s, "
        f"{made['parameters'] / 1e6:.1f} M parameters"
    )
    return out


def _rows(built: dict[str, Any], split: str) -> int:
    return int(built["splits"].get(split, {}).get("rows", 0))


def _describe(job: Job) -> str:
    device = "GPU" if job.use_gpu else "CPU"
    plan: Plan = job.plan
    return (
        f"{plan.steps} steps of {plan.batch_size} rows of {plan.seq_len} tokens on {plan.workers} {device} "
        f"worker{'s' if plan.workers > 1 else ''}, ZeRO-{job.config.zero_stage}"
    )


def _check_model(train: TrainConfig, built: dict[str, Any]) -> None:
    """Refuses a base model that is not there or does not know the data's tokens.

    Raises:
        UserError: see above.
    """
    name = train.model.name
    if name is None:
        return
    known = int(pretrained.load_config(name).get_text_config().vocab_size)
    if built["vocab_size"] > known:
        raise TrainError(
            f"train.model.name={name!r} knows {known} tokens, the data prefix was built with a tokenizer of "
            f"{built['vocab_size']}",
            hint=f"build the data with the model's own tokenizer: data.tokenizer.name={name}",
        )


def _use_gpu(train: TrainConfig) -> bool:
    """Whether the workers get GPUs, after a look at what the cluster has.

    Raises:
        TrainError: the local cluster can never hold the workers.
    """
    import ray

    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    use_gpu = bool(have.get("GPU")) if train.use_gpu is None else train.use_gpu
    wanted = {"CPU": train.workers * train.cpus_per_worker} | ({"GPU": float(train.workers)} if use_gpu else {})
    for name, number in wanted.items():
        if number <= have.get(name, 0):
            continue
        text = f"train.workers={train.workers} need {number:g} {name}s, the Ray cluster has {have.get(name, 0):g}"
        if os.environ.get("RAY_ADDRESS"):
            say(f"train: {text}; waiting for it to grow")
        else:
            raise TrainError(text, hint="lower train.workers or train.cpus_per_worker")
    return use_gpu


def _fit(job: Job) -> dict[str, Any]:
    """Runs the workers to the end and returns what rank 0 says of the run."""
    import ray.train
    import ray.train.torch

    from kit19_ray.train.trainer import work

    api: Any = ray.train  # its types are those of Train v1, which is not what runs
    parent, name = job.out.rsplit("/", 1)
    filesystem, path = storage.filesystem(parent)
    train = job.config
    trainer = api.torch.TorchTrainer(
        work,
        train_loop_config={"job": job},
        torch_config=api.torch.TorchConfig(backend="nccl" if job.use_gpu else "gloo"),
        scaling_config=api.ScalingConfig(
            num_workers=train.workers,
            use_gpu=job.use_gpu,
            resources_per_worker={"CPU": train.cpus_per_worker} | ({"GPU": 1} if job.use_gpu else {}),
        ),
        run_config=api.RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=api.CheckpointConfig(num_to_keep=train.keep_checkpoints),
            failure_config=api.FailureConfig(max_failures=train.max_failures),
            worker_runtime_env={"env_vars": worker_environment(job)},
        ),
    )
    try:
        with watching(job.out, job.plan.steps):
            result = trainer.fit()
    except api.TrainingFailedError as failure:
        raise _explained(failure, job) from None
    made = result.return_value
    if isinstance(made, dict) and isinstance(made.get("error"), UserError):
        raise made["error"]
    if not isinstance(made, dict) or not made.get("files"):
        raise RuntimeError(f"the workers ended without an export: {made!r}")
    return made


def worker_environment(job: Job) -> dict[str, str]:
    """Variables that must be set before a worker imports torch and DeepSpeed."""
    return {
        "DS_ACCELERATOR": "cuda" if job.use_gpu else "cpu",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic matrix products
        "TORCHDYNAMO_DISABLE": "1",  # nothing is compiled here; importing the compiler takes seconds
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _explained(failure: Exception, job: Job) -> Exception:
    """One message for what went wrong in the workers; the tracebacks go to the run's prefix."""
    workers: dict[int, Exception] = getattr(failure, "worker_failures", {})
    path = storage.join(job.out, FAILURE)
    storage.write_text(path, str(failure))
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
    said = "; ".join(f"worker {rank}: {_last_line(error)}" for rank, error in sorted(workers.items()))
    return RuntimeError(f"training failed: {said or _last_line(failure)} (tracebacks: {path})")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
