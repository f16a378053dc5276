"""The train stage, looked at: batches, steps, the model's size, memory per worker, storage, time."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import NotRequired, TypedDict

from kit19_ray.artifacts import checkpoint, manifest, metrics_log
from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.artifacts.stage_manifests import is_train
from kit19_ray.config.schema import Config, TrainConfig
from kit19_ray.errors import StorageError, UserError
from kit19_ray.evaluate import checkpoints, documents
from kit19_ray.io import storage
from kit19_ray.lm import pretrained
from kit19_ray.preflight import base_model as named
from kit19_ray.preflight import memory
from kit19_ray.preflight.findings import Findings, State
from kit19_ray.preflight.model_sizes import Sizes
from kit19_ray.tasks.task import load_tasks
from kit19_ray.train import spec, stage
from kit19_ray.utils import machine
from kit19_ray.utils.json_types import Json

_TOKENS_PER_EXAMPLE = 80  # mean of the sample build with its tokenizer; a data prefix that is finished says its own


class CardFacts(TypedDict):
    """Whether a worker fits a GPU of so many GB, and with which settings it would."""

    gb: int
    fits: bool
    fits_with: NotRequired[Json]
    then_bytes: NotRequired[int]


class StorageFacts(TypedDict):
    """Bytes of a checkpoint, how many are kept, bytes of the export."""

    checkpoint: int
    checkpoints: int
    export: int


class DeviceFacts(TypedDict):
    """A worker on one kind of device: bytes by what takes them, `cards` where it is a GPU."""

    device: str
    precision: str
    bytes: dict[str, int]
    cards: NotRequired[list[CardFacts]]
    storage: StorageFacts


class BestFacts(TypedDict):
    """Which checkpoint is exported: the score and how many checkpoints have it; `limit` is in documents."""

    score: str
    more_is_better: bool
    checkpoints: int
    patience: int | None
    limit: int | None


def train(config: Config, data: Findings, built: DataManifest | None) -> Findings:
    """What `kit19 train` would do.

    Args:
        data: the data stage, looked at.
        built: its manifest, None where it is not finished.
    """
    # Nothing was trained on data that was never built; on data that cannot be named, nobody knows.
    found = Findings("train", state="unknown" if data.uri is None else "to do")
    if built is not None:
        found.uri = stage.uri(config, str(data.uri))
        found.state = _state(found)
    rows, seq_len, vocab_size, asked = _corpus(config, data, built)
    # A published model has its own vocabulary; one from scratch has the tokenizer's, which may come out smaller.
    found.facts |= {"estimated": built is None, "parameters_estimated": built is None and not config.train.model.name}
    sizes = named.sizes(config, vocab_size, found)
    if config.train.model.name:
        named.check_named(config.train.model.name, "train.model.name", "config.json", found)
    stated = found.check(lambda: named.read_config(str(config.train.model.name))) if config.train.model.name else None
    positions = pretrained.positions(stated) if stated is not None else None
    if built is not None:
        known = sizes.vocab_size if sizes is not None and config.train.model.name else None
        found.missing += stage.check(config.train, str(data.uri), built, known, positions)
    else:
        found.missing += stage.check_length(config.train, seq_len, positions)
    made = found.check(lambda: spec.make(config.train, rows, seq_len))
    if made is not None:
        least = config.train.min_workers or config.train.workers
        if made.batch_size % (least * made.micro_batch_size):
            found.notes.append(
                f"train.batch_size={made.batch_size} does not divide by {least} workers x train.micro_batch_size="
                f"{made.micro_batch_size}: some passes are shorter, so some workers wait for others"
            )
        found.facts |= asdict(made) | {"accumulation": made.accumulation, "tokens": made.steps * made.batch_tokens}
        _time(config, made, found)
        _best(config, made, built, found)
    if sizes is not None:
        _size(config.train, sizes, seq_len, asked, found)
        _disk(config, found)
    _machine(config.train, found)
    return found


def _state(found: Findings) -> State:
    out = str(found.uri)
    if manifest.read(out) is not None:
        return "finished"
    newest = checkpoint.newest(out)
    if newest is None:
        return "to do"
    found.facts["resumes_at_step"] = newest["step"]
    return "resumable"


def _corpus(config: Config, data: Findings, built: DataManifest | None) -> tuple[int, int, int, float]:
    """Packed training rows, their length, entries of the vocabulary, share of positions that have a label."""
    if built is not None:
        split = built["splits"]["train"]
        tokens = split["rows"] * built["seq_len"]
        return split["rows"], built["seq_len"], built["vocab_size"], split["labels"] / max(1, tokens)
    seq_len = config.data.seq_len
    rows = math.ceil(data.facts.get("examples_at_most", 0) * _TOKENS_PER_EXAMPLE / seq_len)
    return max(1, rows), seq_len, config.data.tokenizer.vocab_size, 1.0


def _time(config: Config, made: spec.TrainPlan, found: Findings) -> None:
    """Seconds left, where an earlier run of the same model under this root says how fast it was."""
    if found.state == "finished":
        return
    line = metrics_log.last(str(found.uri)) if found.uri else None
    if found.state == "resumable" and line and line.get("tokens_per_second"):
        left = (made.steps - found.facts["resumes_at_step"]) * made.batch_tokens
        found.facts |= {"seconds": left / line["tokens_per_second"], "seconds_from": found.uri}
        return
    runs = []
    for name in storage.list_dirs(config.root):
        run = manifest.read(storage.join(config.root, name)) if name.startswith("train-") else None
        if is_train(run) and run["config"]["model"] == config.train.model.identity() and run.get("tokens_per_second"):
            runs.append((run["tokens"], name, run["tokens_per_second"]))
    if runs:
        _, name, speed = max(runs)  # the longest run is the steadiest figure
        seconds = made.steps * made.batch_tokens / speed
        found.facts |= {"seconds": seconds, "seconds_from": storage.join(config.root, name)}


def _best(config: Config, made: spec.TrainPlan, built: DataManifest | None, found: Findings) -> None:
    """Which checkpoint is exported, and what scoring on the way takes."""
    wanted, train = config.train.best, config.train
    if wanted.score is None:
        return
    facts: BestFacts = {
        "score": wanted.score,
        "more_is_better": wanted.more_is_better,
        "checkpoints": len(made.scored_steps),
        "patience": wanted.patience,
        "limit": None,
    }
    found.facts["best"] = facts
    if wanted.task is None:
        return
    narrow = checkpoints.narrowed(config, built["tasks"] if built else _data_tasks(config))
    facts["limit"] = narrow.evaluate.limit
    found.check(lambda: documents.check_source(narrow, narrow.evaluate.tasks))
    have = {"CPU": float(machine.cpus()), "GPU": 0.0}
    alone = train.use_gpu is False and not os.environ.get("RAY_ADDRESS") and found.state != "finished"
    if alone and (lacks := checkpoints.lacking(narrow, have)) is not None:
        found.notes.append(f"{lacks}: it takes a cluster (RAY_ADDRESS)")


def _data_tasks(config: Config) -> list[str]:
    """Tasks whose rows the data stage will hold out; none where it cannot tell, which it says itself."""
    with contextlib.suppress(UserError):
        own = [dataset.name for dataset in config.data.datasets if dataset.name]
        return [*load_tasks(config.data.tasks, config.data.tasks_dir), *own]
    return []


def _devices(train: TrainConfig) -> list[tuple[bool, str]]:
    """(on a GPU, precision) of each way the run may go; both where the config leaves it to the cluster."""
    both = [True] if train.optimizer == "adamw_8bit" else [True, False]  # that one is refused on a CPU
    kinds = [train.use_gpu] if train.use_gpu is not None else both
    auto = {True: "bf16", False: "fp32"}
    return [(gpu, auto[gpu] if train.precision == "auto" else train.precision) for gpu in kinds]


def _size(train: TrainConfig, sizes: Sizes, seq_len: int, asked: float, found: Findings) -> None:
    trained = sizes.trained(train.lora, train.embeddings_beside_adapters)
    found.facts |= {"parameters": sizes.parameters, "trained_parameters": trained}
    found.facts["devices"] = []
    for gpu, precision in _devices(train):
        setting = memory.Setting(
            sizes=sizes,
            precision=precision,
            zero_stage=train.zero_stage,
            workers=train.workers,
            micro_batch_size=train.micro_batch_size,
            seq_len=seq_len,
            gradient_checkpointing=train.gradient_checkpointing,
            asked=asked,
            gpu=gpu,
            lora=train.lora,
            offload=train.offload,
            optimizer=train.optimizer,
            embeddings_beside_adapters=train.embeddings_beside_adapters,
        )
        bytes_ = memory.estimate(setting)
        entry: DeviceFacts = {
            "device": "GPU" if gpu else "CPU",
            "precision": precision,
            "bytes": asdict(bytes_) | {"total": bytes_.total},
            "cards": [_card(setting, train.batch_size, bytes_, card) for card in memory.CARDS if gpu],
            "storage": {
                "checkpoint": memory.checkpoint_bytes(trained),
                "checkpoints": train.keep_checkpoints,
                # With adapters: the base with them added, and they alone beside it.
                "export": memory.export_bytes(sizes.parameters + (trained if train.lora.rank else 0), precision),
            },
        }
        if not gpu:
            del entry["cards"]
        found.facts["devices"].append(entry)


def _card(setting: memory.Setting, batch_size: int, bytes_: memory.Memory, card: int) -> CardFacts:
    if bytes_.fits(card):
        return {"gb": card, "fits": True}
    better = memory.suggestion(setting, batch_size, card)
    if better is None:
        return {"gb": card, "fits": False}
    return {"gb": card, "fits": False, "fits_with": better[0], "then_bytes": better[1].total}


def _disk(config: Config, found: Findings) -> None:
    """A local disk that cannot hold checkpoints and export is missing space."""
    if found.state == "finished" or not config.root.startswith("file://"):
        return
    # One more checkpoint than is kept, while it is written.
    needs = [
        (s["checkpoints"] + 1) * s["checkpoint"] + s["export"] for s in (d["storage"] for d in found.facts["devices"])
    ]
    folder = Path(storage.filesystem(config.root)[1])
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if min(needs) > free:
        found.missing.append(
            StorageError(
                f"{config.root}: checkpoints and export need {min(needs) / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                hint="lower train.keep_checkpoints, or give a root with more space",
            )
        )


def _machine(train: TrainConfig, found: Findings) -> None:
    """What this machine alone could not hold; a cluster may."""
    if os.environ.get("RAY_ADDRESS") or found.state == "finished":
        return
    wanted, have = train.workers * train.cpus_per_worker, machine.cpus()
    if wanted > have:
        found.notes.append(
            f"train.workers={train.workers} x train.cpus_per_worker={train.cpus_per_worker:g} need {wanted:g} CPUs, "
            f"this machine has {have}: it takes a cluster (RAY_ADDRESS)"
        )
    need = max((d["bytes"]["total"] for d in found.facts.get("devices", []) if d["device"] == "CPU"), default=0)
    ram = machine.memory()
    if train.use_gpu is False and train.workers * need > ram:
        found.notes.append(
            f"train.workers={train.workers} need about {train.workers * need / 1e9:.0f} GB, this machine has "
            f"{ram / 1e9:.0f} GB: lower train.micro_batch_size or set train.gradient_checkpointing=true"
        )
    if train.lora.quantize != "none" and train.use_gpu is not True:
        found.notes.append(
            "train.lora.quantize=nf4 is for GPUs: bitsandbytes is very slow on a CPU; set train.use_gpu=true"
        )
    if train.optimizer == "adamw_8bit" and train.use_gpu is None:
        found.notes.append(
            "train.optimizer=adamw_8bit steps on GPUs only: a cluster without any is refused; train.use_gpu=true waits "
            "for GPUs"
        )
    if train.use_gpu and not list(Path("/dev").glob("nvidia[0-9]*")):
        found.notes.append("train.use_gpu=true, and this machine has no NVIDIA GPU: it takes a cluster (RAY_ADDRESS)")
