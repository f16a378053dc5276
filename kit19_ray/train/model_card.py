"""README.md of an export: what it was made from, with what, and how it did."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from kit19_ray.artifacts.stage_manifests import TrainFigures
from kit19_ray.train.spec import TrainSpec

_PACKAGES = ("kit19-ray", "torch", "deepspeed", "ray", "transformers", "peft")


def provenance() -> dict[str, str]:
    """What made the run: versions, the container image and the commit where the environment names them."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for name, variable in (("image", "KIT19_IMAGE"), ("git", "KIT19_GIT_SHA")):
        if value := os.environ.get(variable):
            found[name] = value
    return found


def render(spec: TrainSpec, figures: TrainFigures, adapted: bool) -> str:
    """The card.

    Args:
        figures: of the run, as the manifest has them.
    """
    model, plan = spec.config.model, spec.plan
    base = model.name or "a GPT-NeoX from scratch"
    front = ["---", "language: ko", "pipeline_tag: text-generation", "tags: [kit19]"]
    if model.name and "://" not in model.name:
        front.append(f"base_model: {model.name}")
    lora = spec.config.lora
    how = f"{lora.kind} adapters of rank {lora.rank}, merged into the weights" if adapted else "all weights trained"
    if spec.config.embeddings_beside_adapters:
        entries = f"the base model needs {spec.vocab_size:,} entries (`resize_token_embeddings`)"
        how += f"; embedding and head trained whole: before it takes the adapter up, {entries}"
    rows = [
        ("base model", base + (f", revision {model.revision}" if model.revision else "")),
        ("trained", how),
        ("parameters", f"{figures['parameters']:,}, of which {figures['trained_parameters']:,} trained"),
        ("data", f"{spec.data} (its README.md has the licences of every source)"),
        ("prompt", spec.prompt),
        ("steps", f"{plan.steps:,} of {plan.batch_size} rows of {plan.seq_len:,} tokens"),
        ("precision", figures["precision"]),
        ("validation loss", f"{figures['validation_loss_first']:.4f} before, {figures['validation_loss']:.4f} after"),
        ("seed", str(spec.seed)),
        ("versions", ", ".join(f"{name} {value}" for name, value in figures["provenance"].items())),
    ]
    name = spec.out.rsplit("/", 1)[1]
    return "\n".join(
        [
            *front,
            "---",
            f"# {name}",
            "",
            "Trained by `kit19 train` on instruction data. What the data's licences forbid, the model's use may too.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {value.replace('|', ' ')} |" for key, value in rows),
            "",
        ]
    )
