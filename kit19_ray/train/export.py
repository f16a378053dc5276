"""The export: whole weights as safetensors with the tokenizer, loaded back and compared before the run may succeed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from kit19_ray.io import storage
from kit19_ray.lm import pretrained
from kit19_ray.train.engine import Batch, Engine
from kit19_ray.train.spec import Job
from kit19_ray.utils.hashing import sha256_stream

FOLDER = "export"
# Largest difference of a logit, relative to the largest logit, that another kernel or order of sums explains.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def export(engine: Engine, job: Job, batch: Batch) -> dict[str, str] | None:
    """Writes `<out>/export/` and returns its files' SHA-256 at rank 0, None elsewhere; all ranks must call it.

    Args:
        batch: rows on which the engine and what was written must agree.

    Raises:
        RuntimeError: they do not.
    """
    expected = engine.logits(batch)
    weights = engine.full_weights()
    if weights is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, weights, engine.module.model, job)
        compare(folder, expected, batch, engine.dtype)
        target = storage.join(job.out, FOLDER)
        storage.delete(target)  # what an interrupted export left
        storage.upload_dir(folder, target)
        return {
            f"{FOLDER}/{p.relative_to(folder).as_posix()}": _sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()
        }


def write(folder: Path, weights: dict[str, torch.Tensor], model: Any, job: Job) -> None:
    """Writes weights, config, generation config and the data prefix's tokenizer to `folder`."""
    from transformers import GenerationConfig

    config = model.config
    config.use_cache = True
    # A second shell on the meta device, filled by name: what is saved is what the names say, sharded engine or not.
    with torch.device("meta"):
        shell = type(model)(config)
    missing, unexpected = shell.load_state_dict(weights, strict=False, assign=True)
    tied = set(getattr(shell, "all_tied_weights_keys", None) or ())
    if unexpected or set(missing) - tied:
        raise RuntimeError(f"export: weights missing {sorted(missing)}, unexpected {sorted(unexpected)}")
    shell.tie_weights()
    shell.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=config.bos_token_id, eos_token_id=job.eos_token_id, pad_token_id=job.pad_token_id
    )
    shell.save_pretrained(folder)
    storage.download_dir(storage.join(job.data, "tokenizer"), folder)


def compare(folder: Path, expected: torch.Tensor, batch: Batch, dtype: torch.dtype) -> float:
    """Loads the export and returns the largest difference of a logit on `batch`.

    Raises:
        RuntimeError: it is beyond the tolerance of `dtype`.
    """
    loaded = pretrained.load_causal_lm(str(folder)).to(expected.device)
    with torch.no_grad():
        found = loaded(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits.float()
    difference = float((found - expected).abs().max())
    allowed = TOLERANCE[dtype] * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:  # a NaN is not below either
        raise RuntimeError(
            f"export: the model that was loaded back differs from the one that was trained: largest difference of a "
            f"logit {difference:.3g}, allowed {allowed:.3g}"
        )
    return difference


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_stream(file)[0]
