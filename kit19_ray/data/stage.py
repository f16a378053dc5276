"""The data stage on Ray Data: one prefix of examples, a tokenizer, packed shards, a manifest and a data card.

    tasks   --map-->  each reads its files in one streaming pass and writes its examples, sorted by a hash of their ids
    shards  --map-->  each reads its range of that hash from every task's file, tokenizes, packs and writes one file

There is no shuffle: the hash mixes the tasks, and a range of it can be read without the rest. So a shard's bytes are
the same for any number of CPUs, and a task that is tried again writes them again.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from kit19_ray import manifest, runtime, storage
from kit19_ray.config import Config
from kit19_ray.data import build, card, tokenizer
from kit19_ray.data.inputs import Inputs, collect
from kit19_ray.errors import DataError
from kit19_ray.progress import say
from kit19_ray.prompt import prompt_format

VERSION = 1  # of what this stage writes; raise it when equal inputs would give other bytes
SPLITS = ("train", "validation")


def uri(config: Config) -> str:
    """The prefix this config's data section builds; reads the source files to hash them."""
    return _uri(config, collect(config))


def _uri(config: Config, inputs: Inputs) -> str:
    return manifest.stage_uri(config.root, "data", _identity(config, inputs))


def _identity(config: Config, inputs: Inputs) -> dict[str, Any]:
    return {
        "version": VERSION,
        "seed": config.seed,
        "data": config.data.identity(),
        "tasks": {name: task.model_dump(mode="json") for name, task in inputs.tasks.items()},
        "files": {name: inputs.hashes(name) for name in inputs.files},
    }


def run(config: Config) -> str:
    """Builds the data prefix and returns its URI; a finished one is left as it is.

    Raises:
        SourceError, TaskError, DataError, StorageError: what the user can mend.
    """
    prompt_format(config.data.prompt)
    inputs = collect(config)
    out = _uri(config, inputs)
    if manifest.read(out) is not None:
        say(f"data: {out} is built already")
        return out
    for name, reason in inputs.skipped.items():
        say(f"data: {name} left out: {reason}")
    storage.delete(out)  # what an interrupted build left
    with runtime.connected(config.data.cpus):
        built = _build(config, inputs, out)
    manifest.commit(out, built)
    say(card.summary(built))
    return out


def _build(config: Config, inputs: Inputs, out: str) -> dict[str, Any]:
    import ray

    runtime.prepare_ray_data()
    data = config.data
    say(f"data: {len(inputs.tasks)} tasks, {len(inputs.sha256)} files -> {out}")
    jobs = {
        name: build.TaskJob(
            task=task,
            files=inputs.files[name],
            out=out,
            seed=config.seed,
            quota=data.quotas.get(name, data.quota),
            validation=data.validation,
            validation_fraction=data.validation_fraction,
            repeat=data.repeat,
        )
        for name, task in inputs.tasks.items()
    }
    # The largest first, so that none starts when the other CPUs are done.
    by_size = sorted(jobs, key=lambda name: -sum(f.size for f in jobs[name].files))
    names = ray.data.from_items([{"task": name} for name in by_size], override_num_blocks=len(jobs))
    built = names.map(partial(build.build_task, jobs=jobs))
    counted = {row["task"]: json.loads(row["stats"]) for row in built.iter_rows()}
    tasks = {name: counted[name] for name in jobs}
    counts = {split: sum(t["examples"][split] for t in tasks.values()) for split in SPLITS}
    if not counts["train"]:
        raise DataError("no training example was built: every row of every source was dropped (see the reasons above)")
    say(f"data: {counts['train']:,} training and {counts['validation']:,} validation examples")
    info = _tokenizer(config, sorted(inputs.tasks), out)
    shards = _shards(config, counts, info, out, sorted(inputs.tasks))
    toolkit = build.export_toolkit(out, sorted(inputs.tasks), counts["train"])
    result = _manifest(config, inputs, tasks, info, shards) | {"toolkit": toolkit}
    card.write(out, result, inputs.tasks)
    return result


def _tokenizer(config: Config, tasks: list[str], out: str) -> dict[str, Any]:
    named = config.data.tokenizer.name
    with tempfile.TemporaryDirectory() as folder:
        if named:
            loaded = tokenizer.published(named)
        else:
            say(f"data: training a byte-level BPE of {config.data.tokenizer.vocab_size} entries")
            loaded = tokenizer.train_bpe(
                build.texts(out, tasks, config.data.prompt), config.data.tokenizer.vocab_size, config.data.seq_len
            )
        tokenizer.save(loaded, Path(folder))
        storage.upload_dir(Path(folder), storage.join(out, "tokenizer"))
    pad = loaded.pad_token_id if loaded.pad_token_id is not None else loaded.eos_token_id
    return {"eos_token_id": loaded.eos_token_id, "pad_token_id": pad, "vocab_size": len(loaded)}


def _shards(
    config: Config, counts: dict[str, int], info: dict[str, Any], out: str, tasks: list[str]
) -> list[dict[str, Any]]:
    import ray

    say("data: tokenizing and packing")
    job = build.ShardJob(
        out=out,
        tasks=tasks,
        seq_len=config.data.seq_len,
        prompt=config.data.prompt,
        eos_id=info["eos_token_id"],
        pad_id=info["pad_token_id"],
        shards={s: -(-counts[s] // config.data.examples_per_shard) for s in SPLITS if counts[s]},
    )
    numbers = [{"split": s, "number": n} for s, shards in job.shards.items() for n in range(shards)]
    packed = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map(partial(build.build_shard, job=job))
    return sorted(packed.iter_rows(), key=lambda row: str(row["path"]))


def _manifest(
    config: Config,
    inputs: Inputs,
    tasks: dict[str, Any],
    info: dict[str, Any],
    shards: list[dict[str, Any]],
) -> dict[str, Any]:
    """Counts of the whole build: per task from its rows to its tokens, per split its shards."""
    per_task = build.add_tokens(tasks, shards)
    for name in tasks:
        task = inputs.tasks[name]
        per_task[name] |= {
            "category": task.spec.category,
            "source": task.source_id,
            "licence": task.source.licence.name,
            "splits": config.data.splits.get(name, list(task.spec.splits)),
            "sha256": inputs.hashes(name),
        }
    return {
        "stage": "data",
        "version": VERSION,
        "identity": manifest.digest(_identity(config, inputs)),
        "seed": config.seed,
        "config": config.data.identity(),
        "prompt": config.data.prompt,
        "seq_len": config.data.seq_len,
        **info,
        "tasks": per_task,
        "skipped": inputs.skipped,
        "splits": build.split_totals(shards, config.data.seq_len),
    }
