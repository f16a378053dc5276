"""The data stage: from original files to a prefix of examples, tokenizer, packed shards, manifest and card.

`pipeline` has what is done to the rows; this finds what a config builds, announces it, and commits it.
"""

from __future__ import annotations

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.data_manifests import BuildOutput, DataManifest, Identity
from kit19_ray.config.schema import Config
from kit19_ray.data import hub_datasets
from kit19_ray.data.card import render
from kit19_ray.data.filters import licence_policy
from kit19_ray.data.inputs import Inputs, collect
from kit19_ray.data.pipeline import VERSION, Build
from kit19_ray.io import lease, storage
from kit19_ray.lm.prompts import check_prompt
from kit19_ray.utils import ray_session
from kit19_ray.utils.console import say


def uri(config: Config) -> str:
    """The prefix this config's data section builds; reads the source files to hash them."""
    return _uri(config, collect(config))


def _uri(config: Config, inputs: Inputs) -> str:
    return manifest.stage_uri(config.root, "data", _identity(config, inputs))


def _identity(config: Config, inputs: Inputs) -> Identity:
    return {
        "version": VERSION,
        "seed": config.seed,
        "data": config.data.identity(),
        "tasks": {name: task.model_dump(mode="json") for name, task in inputs.tasks.items()},
        "files": {name: inputs.hashes(name) for name in inputs.files},
        "evaluation": inputs.evaluation_hashes(),
    }


def run(config: Config) -> str:
    """Builds the data prefix and returns its URI; a finished one is left as it is.

    Raises:
        SourceError, TaskError, DataError, StorageError: what the user can mend.
    """
    check_prompt(config.data.prompt)
    hub_datasets.fetch(config)
    inputs = collect(config)
    out = _uri(config, inputs)
    if manifest.finished(out, "data") is None:
        # One build at a time on a root: builds share what is below `tasks/`, whatever their own prefix.
        with lease.held(storage.join(config.root, "tasks"), "data") as held:
            if manifest.finished(out, "data") is None:
                _build(config, inputs, out, held)
                return out
    say(f"data: {out} is built already")
    return out


def _build(config: Config, inputs: Inputs, out: str, held: lease.Lease) -> None:
    _announce(config, inputs, out)
    storage.delete(out)  # what an interrupted build left
    with ray_session.connected(config.data.cpus):
        ray_session.prepare_ray_data()
        built = _manifest(config, inputs, Build(config, inputs, out).run())
    render.write(out, built, inputs.tasks)
    held.require()
    shards = {s["path"]: s["sha256"] for split in built["splits"].values() for s in split["shards"]}
    manifest.commit(out, built, known=shards)
    say(render.summary(built))


def _announce(config: Config, inputs: Inputs, out: str) -> None:
    for name, reason in inputs.skipped.items():
        say(f"data: {name} left out: {reason}")
    for line in licence_policy.notice(inputs.tasks):
        say(f"data: {line}")
    if config.data.ablation == "with-test":
        say(
            "data: ablation with-test: test splits are trained on and nothing is decontaminated; scores of such a model"
        )
        say("data: say nothing but how much a leak is worth")
    elif config.data.gates.decontaminate:
        at_hand = ", ".join(found.name for found in inputs.evaluation)
        absent = f"; not at hand: {', '.join(inputs.absent)}" if inputs.absent else ""
        say(f"data: no row may hold an item of {at_hand or 'any evaluation set'}{absent}")
    say(f"data: {len(inputs.tasks)} tasks, {len(inputs.sha256)} files -> {out}")


def _manifest(config: Config, inputs: Inputs, built: BuildOutput) -> DataManifest:
    """Counts of the whole build: per task from its rows to its tokens, per split its shards."""
    data = config.data
    return {
        "stage": "data",
        "version": VERSION,
        "identity": manifest.digest(_identity(config, inputs)),
        "seed": config.seed,
        "config": data.identity(),
        "ablation": data.ablation if data.ablation != "none" else None,
        "licence_policy": data.licence_policy,
        "decontamination": {"sets": inputs.evaluation_hashes(), "absent": inputs.absent},
        "prompt": data.prompt,
        "seq_len": data.seq_len,
        "skipped": inputs.skipped,
        **built,
    }
