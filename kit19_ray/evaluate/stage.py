"""The evaluate stage: a model on the harness's tasks and on the held-out rows; scores.json, report.md, manifest."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from kit19_ray import __version__, manifest, models, runtime, storage
from kit19_ray.config import Config
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import report
from kit19_ray.progress import say

VERSION = 1  # of what this stage writes
_PACKAGES = ("lm-eval", "transformers", "torch", "ray", "datasets", "sacrebleu")


def run(config: Config, model: str, data_uri: str | None) -> str:
    """Scores `model` and returns the prefix; a finished one is left as it is.

    Args:
        model: train prefix, hub id, local path or s3:// prefix.
        data_uri: finished data prefix whose validation rows are scored; None leaves them out.

    Raises:
        EvaluateError: an unknown task, nothing to score, too few CPUs.
        UserError: the model or a source file is missing.
    """
    from kit19_ray.evaluate import harness, kobest

    asked = harness.names(config)
    held_out = data_uri if config.evaluate.held_out else None
    if not asked and held_out is None:
        raise EvaluateError("evaluate.tasks is empty and evaluate.held_out is false: there is nothing to score")
    found = models.resolve(model)
    identity = {
        "version": VERSION,
        "kit19": __version__,
        "evaluate": config.evaluate.identity(),
        "tasks": asked,
        "model": _model_identity(model, found),
        "documents": {
            task: kobest.hashes(config, task)
            for task in asked
            if task in kobest.LABELS and config.evaluate.source == "files"
        },
        "held_out": manifest.require(held_out, "data")["identity"] if held_out else None,
    }
    out = manifest.stage_uri(config.root, "evaluate", identity)
    if manifest.read(out) is not None:
        say(f"evaluate: {out} is scored already")
        return out
    with runtime.connected():
        say(f"evaluate: {model} -> {out}")
        scores = _scores(config, model, found, asked, held_out)
    storage.write_text(storage.join(out, "scores.json"), json.dumps(scores, ensure_ascii=False, indent=1) + "\n")
    storage.write_text(storage.join(out, "report.md"), report.markdown(scores))
    manifest.commit(out, {"stage": "evaluate", "version": VERSION, "model": model, "data": held_out, **identity})
    report.show(scores)
    return out


def _model_identity(name: str, found: str) -> str:
    """What tells one model from another: a train prefix's file hashes, or the name of what is elsewhere."""
    if "://" in name or found != name:
        made = manifest.read(storage.normalise(name))
        if made is not None and "files" in made:
            return manifest.digest(made["files"])
    return storage.normalise(name) if "://" in name or found != name else name


def _scores(config: Config, model: str, found: str, asked: list[str], held_out: str | None) -> dict[str, Any]:
    import transformers

    from kit19_ray.evaluate import harness
    from kit19_ray.evaluate import held_out as rows
    from kit19_ray.evaluate.actors import Pool
    from kit19_ray.evaluate.lm import RayLM

    # The harness's requests are cut to the context later; that the tokenizer finds them long is no news.
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    tokenizer = models.load_tokenizer(found)
    pool = Pool(found if found == model else storage.normalise(model), config.evaluate)
    try:
        lm = RayLM(pool, models.load_config(found), tokenizer)
        judged = harness.evaluate(lm, harness.load(config, asked), config.evaluate.limit) if asked else None
        own = rows.score(pool, tokenizer, lm.max_length, held_out, config.evaluate) if held_out else {}
    finally:
        pool.close()
    return {
        "model": model,
        "num_fewshot": config.evaluate.num_fewshot,
        "limit": config.evaluate.limit,
        "tasks": harness.scores(judged) if judged else {},
        "held_out": own,
        "versions": {"kit19-ray": __version__, **{name: version(name) for name in _PACKAGES}},
    }
