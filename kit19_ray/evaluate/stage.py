"""The evaluate stage: a model on the harness's tasks and on the held-out rows; scores.json, report.md, manifest."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kit19_ray import __version__
from kit19_ray.artifacts import manifest
from kit19_ray.artifacts import scores as scores_file
from kit19_ray.config.schema import Config
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import report
from kit19_ray.io import lease, storage
from kit19_ray.lm import pretrained
from kit19_ray.utils import ray_session
from kit19_ray.utils.console import say

VERSION = 2  # of what this stage writes; raise it when equal inputs would give other scores
REPORT = "report.md"
_PACKAGES = ("lm-eval", "transformers", "torch", "ray", "datasets", "sacrebleu")
_END = 1 << 20  # bytes hashed at each end of a model's file


def run(config: Config, model: str, data_uri: str | None) -> str:
    """Scores `model` and returns the prefix; a finished one is left as it is.

    Args:
        model: train prefix, hub id, local path or s3:// prefix.
        data_uri: finished data prefix whose validation rows are scored; None leaves them out.

    Raises:
        EvaluateError: an unknown task, nothing to score, too few CPUs.
        UserError: the model, the data prefix or a source file is missing.
    """
    from kit19_ray.evaluate import harness

    asked = harness.names(config)
    held_out = data_uri if config.evaluate.held_out else None
    if not asked and held_out is None:
        raise EvaluateError("evaluate.tasks is empty and evaluate.held_out is false: there is nothing to score")
    built = _built(held_out) if held_out else None
    identity = identify(config, model, asked, built)
    out = manifest.stage_uri(config.root, "evaluate", identity)
    if manifest.finished(out, "evaluate") is not None:
        say(f"evaluate: {out} is scored already")
        return out
    with lease.held(out, "evaluate"), ray_session.connected():
        if manifest.finished(out, "evaluate") is not None:
            say(f"evaluate: {out} was scored meanwhile")
            return out
        say(f"evaluate: {model} -> {out}")
        scores, outcomes = _scores(config, model, asked, held_out, built)
    scores_file.write(out, scores, outcomes)
    storage.write_text(storage.join(out, REPORT), report.markdown(scores))
    manifest.commit(
        out,
        {
            "stage": "evaluate",
            "scores": scores_file.SCORES,
            "report": REPORT,
            **identity,
            "model": model,
            "data": held_out,
        },
    )
    report.show(scores)
    return out


def identify(config: Config, model: str, asked: list[str], built: dict[str, Any] | None) -> dict[str, Any]:
    """What the scores depend on; its hash names the prefix.

    Args:
        asked: the harness's tasks.
        built: manifest of the data prefix whose validation rows are scored, if any.

    Raises:
        UserError: the model or a source file is missing.
    """
    from kit19_ray.evaluate import kobest

    ours = [task for task in asked if task in kobest.LABELS and config.evaluate.source == "files"]
    return {
        "version": VERSION,
        "kit19": __version__,
        "evaluate": config.evaluate.identity(),
        "tasks": asked,
        "model": model_identity(model),
        "documents": {task: kobest.hashes(config, task) for task in ours},
        "held_out": built["identity"] if built else None,
    }


def _built(data_uri: str) -> dict[str, Any]:
    found = manifest.read(data_uri)
    if found is None:
        raise EvaluateError(
            f"{data_uri} has no {manifest.NAME}, so its validation rows cannot be scored",
            hint="run `kit19 data` with the same config and root, or set evaluate.held_out=false",
        )
    return found


def _scores(
    config: Config, model: str, asked: list[str], held_out: str | None, built: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """scores.json, and outcomes.json: per task and metric each document's own figure, by the document's name."""
    import transformers

    from kit19_ray.evaluate import harness
    from kit19_ray.evaluate import held_out as rows
    from kit19_ray.evaluate.actors import Pool
    from kit19_ray.evaluate.ray_lm import RayLM

    # The harness's requests are cut to the context later; that the tokenizer finds them long is no news.
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    tokenizer = pretrained.load_tokenizer(model)
    model_config = pretrained.load_config(model)
    pool = Pool(named(model), config.evaluate)
    try:
        lm = RayLM(pool, model_config, tokenizer)
        judged = harness.evaluate(lm, harness.load(config, asked), config.evaluate.limit) if asked else None
        own = rows.score(pool, tokenizer, lm.max_length, held_out, built, config.evaluate) if held_out and built else {}
    finally:
        pool.close()
    outcomes = {
        "tasks": harness.outcomes(judged) if judged else {},
        "held_out": {task: {"accuracy": found.pop("correct")} for task, found in own.items() if "correct" in found},
    }
    scores = {
        "model": model,
        "data": held_out,
        "ablation": _ablation(model),
        "num_fewshot": config.evaluate.num_fewshot,
        "limit": config.evaluate.limit,
        "tasks": harness.scores(judged) if judged else {},
        "held_out": own,
        "versions": {"kit19-ray": __version__, **{name: version(name) for name in _PACKAGES}},
    }
    return scores, outcomes


def _ablation(model: str) -> str | None:
    """The ablation of the data that a train prefix was trained on, so that a leaky model's scores say so."""
    uri = named(model)
    made = manifest.read(uri) if "://" in uri else None
    data = made.get("data") if made else None
    built = manifest.read(data) if isinstance(data, str) else None
    return built.get("ablation") if built else None


def named(model: str) -> str:
    """A hub id as it is, anything else as a URI, which means the same on every node.

    Raises:
        UserError: there is no such model.
    """
    if "://" not in model and not Path(model).expanduser().exists():
        return pretrained.resolve(model)
    return storage.normalise(model)


def model_identity(model: str) -> Any:
    """What tells one model from another: a train prefix's hashes, a folder's content, a hub id's name.

    Raises:
        UserError: there is no such model, or it is a train prefix that was never finished.
    """
    uri = named(model)
    if "://" not in uri:
        return uri
    made = manifest.read(uri)
    if made is not None and made.get("stage") == "train":
        return made["files"]
    pretrained.resolve(uri)
    return {info.path: _fingerprint(storage.join(uri, info.path), info.size) for info in storage.list_files(uri)}


def _fingerprint(uri: str, size: int) -> str:
    """Hash of a file's size and ends: weights that were trained further differ everywhere, and may be many GB."""
    digest = hashlib.sha256(str(size).encode())
    with storage.open_input(uri) as file:
        digest.update(file.read(_END))
        if size > _END:
            file.seek(max(_END, size - _END))
            digest.update(file.read(_END))
    return digest.hexdigest()
