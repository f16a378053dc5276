"""The train stage: a prefix named by what the weights depend on, filled by Ray Train workers, closed by a manifest."""

from __future__ import annotations

import time

from kit19_ray.artifacts import checkpoint, manifest, run_start
from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.artifacts.run_start import RunStart
from kit19_ray.artifacts.stage_manifests import TrainManifest
from kit19_ray.config.schema import Config, TrainConfig
from kit19_ray.errors import TrainError, UserError, quote
from kit19_ray.io import lease, storage
from kit19_ray.lm import pretrained
from kit19_ray.train import best, trackers
from kit19_ray.train import spec as planning
from kit19_ray.train.candidate_scorer import Evaluate
from kit19_ray.train.fit import fit, use_gpu
from kit19_ray.train.interruptions import stopping_in_good_order
from kit19_ray.train.spec import ADAPTER_FOLDER, EXPORT_FOLDER, TrainSpec
from kit19_ray.utils import ray_session
from kit19_ray.utils.console import say

VERSION = 2  # of what this stage writes; raise it when equal inputs would give other weights


def uri(config: Config, data_uri: str) -> str:
    """The prefix that `config` trains into on the finished data prefix `data_uri`.

    Raises:
        StorageError: the data prefix is not finished.
    """
    return _uri(config, manifest.require(data_uri, "data"))


def _uri(config: Config, built: DataManifest) -> str:
    read = {
        "seq_len": built["seq_len"],
        "eos_token_id": built["eos_token_id"],
        "pad_token_id": built["pad_token_id"],
        "vocab_size": built["vocab_size"],
        "prompt": built["prompt"],
        "splits": built["splits"],
    }
    identity = {
        "version": VERSION,
        "seed": config.seed,
        "train": config.train.identity(),
        "data": manifest.digest(read),
    }
    if config.train.best.task is not None:  # how it is scored decides which checkpoint is exported
        identity["evaluate"] = config.evaluate.identity()
    return manifest.stage_uri(config.root, "train", identity)


def run(config: Config, data_uri: str, evaluate: Evaluate | None = None) -> str:
    """Trains, or goes on where an interrupted run stopped, and returns the prefix; a finished one is left as it is.

    Args:
        evaluate: scores a model on the task of train.best, see `candidate_scorer`; needed where that names one.

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
    for error in check(config.train, data_uri, built, *_known(config.train)):
        raise error
    train = config.train
    trackers.require(list(train.trackers), bool(train.lora.rank), train.needing_bitsandbytes)
    with lease.held(out, "train") as held, ray_session.connected():
        if manifest.finished(out, "train") is not None:
            say(f"train: {out} was trained meanwhile")
            return out
        spec = TrainSpec(
            out=out,
            data=data_uri,
            config=config.train,
            plan=plan,
            use_gpu=use_gpu(config.train),
            seed=config.seed,
            vocab_size=built["vocab_size"],
            eos_token_id=built["eos_token_id"],
            pad_token_id=built["pad_token_id"],
            prompt=built["prompt"],
        )
        check_device(train, spec.use_gpu)
        if config.train.best.task is not None:
            if evaluate is None:
                raise TrainError("train.best.score names a task, and nothing was given to score it with")
            evaluate.require()
        say(f"train: {_describe(spec)} -> {out}")
        known, _ = _known(config.train)
        if known is not None and known < spec.vocab_size:
            say(
                f"train: the model's {known:,} entries grow to {spec.vocab_size:,}, each new one the mean of the others"
            )
        run_start.write(out, _start(config, data_uri, built, plan.steps))
        begun = time.monotonic()
        with stopping_in_good_order(out):
            made = fit(spec, evaluate=evaluate)
        if "stopped" in made:
            say(f"train: stopped at step {made['stopped']}, which is saved; the same command goes on there")
            raise KeyboardInterrupt
        held.require()
    steps = made["best"]["last"] if "best" in made else plan.steps
    finished: TrainManifest = {
        **_start(config, data_uri, built, steps),
        "export": EXPORT_FOLDER,
        **made,
        "adapter": ADAPTER_FOLDER,
    }
    if not config.train.lora.rank:
        del finished["adapter"]
    manifest.commit(out, finished, known=made["files"], without=(checkpoint.FOLDER, f"{best.FOLDER}/"))
    say(
        f"train: validation loss {made['validation_loss_first']:.4f} -> {made['validation_loss']:.4f} in "
        f"{time.monotonic() - begun:.0f} s, {made['tokens_per_second']:,.0f} tokens/s, "
        f"{made['parameters'] / 1e6:.1f} M parameters"
    )
    if "best" in made:
        found = made["best"]
        say(f"train: exported step {found['step']} of {steps}, with {found['name']} {found['score']}")
    return out


def _start(config: Config, data_uri: str, built: DataManifest, steps: int) -> RunStart:
    return {
        "stage": "train",
        "version": VERSION,
        "data": data_uri,
        "prompt": built["prompt"],
        "seed": config.seed,
        "config": config.train.identity(),
        "steps": steps,
    }


def _rows(built: DataManifest, split: str) -> int:
    found = built["splits"].get(split)
    return found["rows"] if found else 0


def _describe(spec: TrainSpec) -> str:
    device = "GPU" if spec.use_gpu else "CPU"
    plan, train = spec.plan, spec.config
    number = f"{train.min_workers} to {train.workers}" if train.elastic else f"{train.workers}"
    how = f", {train.lora.kind} of rank {train.lora.rank}" if train.lora.rank else ""
    return (
        f"{plan.steps} steps of {plan.batch_size} rows of {plan.seq_len} tokens on {number} {device} "
        f"worker{'s' if train.workers > 1 else ''}, ZeRO-{train.zero_stage}{how}"
    )


def check(
    train: TrainConfig, data_uri: str, built: DataManifest, known_tokens: int | None, positions: int | None
) -> list[UserError]:
    """What keeps `train` from running on a data prefix, as far as the manifest tells; `kit19 plan` asks too.

    Args:
        data_uri, built: the data prefix and its manifest.
        known_tokens: entries of the base model's vocabulary; None where there is none, or nobody knows.
        positions: tokens that the base model can read; None likewise.
    """
    found: list[UserError] = []
    if not _rows(built, "validation"):
        found.append(TrainError(f"{data_uri} has no validation rows", hint="build it with data.validation above 0"))
    if known_tokens is not None and built["vocab_size"] > known_tokens and not train.model.grow_vocabulary:
        found.append(
            TrainError(
                f"train.model.name={quote(train.model.name)} knows {known_tokens} tokens, the data prefix was built "
                f"with a tokenizer of {built['vocab_size']}",
                hint=f"build the data with the model's own tokenizer: data.tokenizer.name={train.model.name}; or set "
                "train.model.grow_vocabulary=true to add the missing entries",
            )
        )
    return found + check_length(train, built["seq_len"], positions)


def check_length(train: TrainConfig, seq_len: int, positions: int | None) -> list[UserError]:
    """Whether the base model can read rows of `seq_len` tokens."""
    if positions is None or seq_len <= positions:
        return []
    return [
        TrainError(
            f"train.model.name={quote(train.model.name)} reads at most {positions:,} tokens, the data's rows have "
            f"{seq_len:,}",
            hint=f"build the data with data.seq_len={positions} or less",
        )
    ]


def check_device(train: TrainConfig, gpu: bool) -> None:
    """Whether `train` can run on what the cluster has.

    Raises:
        TrainError: it takes GPUs, and there are none.
    """
    if train.optimizer == "adamw_8bit" and not gpu:
        raise TrainError(
            "train.optimizer=adamw_8bit steps on GPUs only, and the cluster has none",
            hint="set train.use_gpu=true to wait for GPUs, or train.optimizer=adamw",
        )


def _known(train: TrainConfig) -> tuple[int | None, int | None]:
    """Entries of the base model's vocabulary and tokens it can read, from its config alone."""
    model = train.model
    if model.name is None:
        return None, None
    config = pretrained.load_config(model.name, model.revision)
    return int(config.get_text_config().vocab_size), pretrained.positions(config)
