"""The export: whole weights as safetensors with the tokenizer, read back and compared before the run may succeed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from kit19_ray.artifacts.stage_manifests import TrainFigures
from kit19_ray.io import storage
from kit19_ray.lm import pretrained
from kit19_ray.train import model_card
from kit19_ray.train.engine import TrainEngine
from kit19_ray.train.inputs import Batch, without_targets
from kit19_ray.train.model import grow_vocabulary
from kit19_ray.train.spec import ADAPTER_FOLDER, EXPORT_FOLDER, TrainSpec
from kit19_ray.train.weights_writer import stored_names, write_all
from kit19_ray.utils.hashing import sha256_stream

# Largest file of an export: as much of the model is in rank 0's memory at a time. It is what a hub takes, a store sends
# anew after a fault, and a loader reads one after another.
_SHARD = 5 * 10**9
# Largest difference of a logit, relative to the largest logit, that another kernel or order of sums explains.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
# Merging adds the adapters' product to rounded weights, where training added it to the rounded output.
_MERGED_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


def export(engine: TrainEngine, spec: TrainSpec, batch: Batch, figures: TrainFigures) -> dict[str, str] | None:
    """Writes `<out>/export/`, and `<out>/adapter/` beside it, and returns their files' SHA-256 at rank 0.

    Args:
        batch: rows on which the engine and what was written must agree.
        figures: of the run, for the model card.

    Returns:
        None at the other ranks; all ranks must call it.

    Raises:
        RuntimeError: what was written is not what was trained.
    """
    expected = engine.logits(batch)
    gathered = engine.full_weights(trained_only=engine.adapted is not None)
    if engine.rank:
        for _ in gathered:  # rank 0 asks for one after the other
            pass
        return None
    hashes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="kit19-export-") as name:
        whole, adapter = Path(name, EXPORT_FOLDER), Path(name, ADAPTER_FOLDER)
        if engine.adapted is not None:
            write_adapter(adapter, dict(gathered), engine.adapted, spec)
            merge(whole, adapter, spec, engine.dtype)
            tolerance = _MERGED_TOLERANCE[engine.dtype]
        else:
            write(whole, gathered, engine.module.model)
            tolerance = TOLERANCE[engine.dtype]
        finish_folder(whole, engine.module.model.config, spec)
        if spec.config.lora.quantize == "none":  # the merged base is not the rounded one that was trained on
            compare_logits(whole, expected, batch, tolerance)
        for folder in (whole, adapter):
            if not folder.is_dir():
                continue
            (folder / "README.md").write_text(model_card.render(spec, figures, engine.adapted is not None))
            hashes |= _upload(folder, storage.join(spec.out, folder.name), folder.name)
    return hashes


def write(folder: Path, gathered: Iterable[tuple[str, torch.Tensor]], model: Any) -> None:
    """Writes weights and config to `folder`, and compares what can be read back with what was gathered."""
    if stored_names(model) is not None:
        write_all(folder, gathered, model, _SHARD)
        return
    # A model whose files have other names than it has itself: transformers turns them round, and needs all at once.
    weights = dict(gathered)
    with torch.device("meta"):
        shell = type(model)(model.config)
    missing, unexpected = shell.load_state_dict(weights, strict=False, assign=True)
    tied = set(getattr(shell, "all_tied_weights_keys", None) or ())
    if unexpected or set(missing) - tied:
        raise RuntimeError(f"export: weights missing {sorted(missing)}, unexpected {sorted(unexpected)}")
    shell.tie_weights()
    save(folder, shell)
    compare_tensors(folder, weights)


def save(folder: Path, model: Any) -> None:
    """Writes a model in the files of an export."""
    model.save_pretrained(folder, max_shard_size=_SHARD)


def write_adapter(folder: Path, weights: dict[str, torch.Tensor], adapted: Any, spec: TrainSpec) -> None:
    """Writes the adapters as peft reads them."""
    from peft import get_peft_model_state_dict

    # peft's names have its wrapper in front. Unasked, it would look the base's vocabulary up, on the hub too.
    state = {f"base_model.model.{name}": tensor for name, tensor in weights.items()}
    beside = spec.config.embeddings_beside_adapters
    kept = get_peft_model_state_dict(adapted, state_dict=state, save_embedding_layers=beside)
    adapted.save_pretrained(folder, state_dict=kept, save_embedding_layers=beside)
    storage.download_dir(storage.join(spec.data, "tokenizer"), folder)


def merge(folder: Path, adapter: Path, spec: TrainSpec, dtype: torch.dtype) -> None:
    """Writes the base model with the adapters added to its weights."""
    from peft import PeftModel

    wanted = spec.config.model
    if wanted.name is None:
        raise RuntimeError("adapters on a model from scratch: nobody has the weights they were trained on")
    base = pretrained.load_causal_lm(wanted.name, dtype, wanted.revision)
    if wanted.grow_vocabulary:
        grow_vocabulary(base, spec.vocab_size)
    save(folder, PeftModel.from_pretrained(base, str(adapter)).merge_and_unload())


def finish_folder(folder: Path, config: Any, spec: TrainSpec) -> None:
    """Writes the generation config and the data prefix's tokenizer beside the weights."""
    from transformers import AutoConfig, GenerationConfig

    saved = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    saved.use_cache = True
    saved.save_pretrained(folder)
    GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=config.bos_token_id, eos_token_id=spec.eos_token_id, pad_token_id=spec.pad_token_id
    ).save_pretrained(folder)
    storage.download_dir(storage.join(spec.data, "tokenizer"), folder)


def compare_tensors(folder: Path, weights: dict[str, torch.Tensor]) -> int:
    """Reads the files back, one tensor at a time, and returns how many are what was gathered, to the bit.

    A name that transformers writes differently from how the model holds it is left to the logits.

    Raises:
        RuntimeError: a tensor differs.
    """
    from safetensors import safe_open

    same = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if name not in weights:
                    continue
                if not torch.equal(file.get_tensor(name), weights[name]):
                    raise RuntimeError(f"export: {path.name} holds another {name} than was trained")
                same += 1
    if not same:
        raise RuntimeError(f"export: {folder.name} holds no weight of the model")
    return same


def compare_logits(folder: Path, expected: torch.Tensor, batch: Batch, tolerance: float) -> float | None:
    """Loads the export and returns the largest difference of a logit on `batch`; None where it does not fit the GPU.

    Args:
        expected: float32 `[rows, seq_len, vocab]`.
        tolerance: allowed difference, as a share of the largest logit.

    Raises:
        RuntimeError: it is more.
    """
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if expected.is_cuda and size > 0.8 * torch.cuda.mem_get_info(expected.device)[0]:
        return None  # beside the engine's own weights; the tensors were compared
    loaded = pretrained.load_causal_lm(str(folder)).to(expected.device)
    inputs = without_targets(batch)
    rows = expected.shape[:2]
    with torch.no_grad():
        found = loaded(
            input_ids=inputs["input_ids"].reshape(rows),
            position_ids=inputs["position_ids"].reshape(rows),
            use_cache=False,
        ).logits.float()
    difference = float((found - expected).abs().max())
    allowed = tolerance * max(1.0, float(expected.abs().max()))
    if not difference <= allowed:  # a NaN is not below either
        raise RuntimeError(
            f"export: the model that was loaded back differs from the one that was trained: largest difference of a "
            f"logit {difference:.3g}, allowed {allowed:.3g}"
        )
    return difference


def _upload(folder: Path, uri: str, name: str) -> dict[str, str]:
    storage.delete(uri)  # what an interrupted export left
    storage.upload_dir(folder, uri)
    return {f"{name}/{path.relative_to(folder).as_posix()}": _sha256(path) for path in _files(folder)}


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_stream(file)[0]
