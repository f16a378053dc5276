"""The evaluate stage: a model on the harness's tasks and on the held-out rows.

scores.json     every score with its error and interval, by task
outcomes.json   each document's own figures, for paired comparisons
samples.jsonl   every question with what the model said
report.md       the scores as tables
manifest.json   what was scored with what; the commit marker
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kit19_ray import __version__
from kit19_ray.artifacts import manifest, sample_file, score_files
from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.artifacts.score_files import Leak, Outcomes, Scores
from kit19_ray.artifacts.stage_manifests import EvaluateIdentity, is_data, is_train
from kit19_ray.config.schema import Config
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import report
from kit19_ray.evaluate.unit_store import UNFINISHED, UnitStore
from kit19_ray.io import lease, storage
from kit19_ray.lm import pretrained
from kit19_ray.utils import ray_session
from kit19_ray.utils.console import say

VERSION = 3  # of what this stage writes; raise it when equal inputs would give other scores
REPORT = "report.md"
_PACKAGES = ("lm-eval", "transformers", "tokenizers", "torch", "ray", "datasets", "sacrebleu", "rapidfuzz")
_END = 1 << 20  # bytes hashed at each end of a model's file


def run(config: Config, model: str, data_uri: str | None) -> str:
    """Scores `model` and returns the prefix; a finished one is left as it is, an unfinished one goes on.

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
    if not asked and held_out is None and not config.evaluate.judge.questions:
        raise EvaluateError("evaluate.tasks is empty and evaluate.held_out is false: there is nothing to score")
    built = _built(held_out) if held_out else None
    identity = identify(config, model, asked, built)
    out = manifest.stage_uri(config.root, "evaluate", identity)
    if manifest.finished(out, "evaluate") is not None:
        say(f"evaluate: {out} is scored already")
        return out
    session = nullcontext() if config.evaluate.endpoint else ray_session.connected()
    with lease.held(out, "evaluate"), session:
        if manifest.finished(out, "evaluate") is not None:
            say(f"evaluate: {out} was scored meanwhile")
            return out
        say(f"evaluate: {model} -> {out}")
        scores, outcomes, store, units = _scores(config, model, asked, held_out, built, out)
        store.join(units)
        score_files.write(out, scores, outcomes)
        storage.write_text(storage.join(out, REPORT), report.markdown(scores))
        manifest.commit(
            out,
            {
                "stage": "evaluate",
                "scores": score_files.SCORES,
                "samples": sample_file.SAMPLES,
                "report": REPORT,
                **identity,
                "model_identity": identity["model"],
                "model": model,
                "data": held_out,
                "versions": scores["versions"],
            },
            without=[f"{UNFINISHED}/"],
        )
        store.clear()
    report.show(scores)
    return out


def identify(config: Config, model: str, asked: list[str], built: DataManifest | None) -> EvaluateIdentity:
    """What the scores depend on; its hash names the prefix.

    Args:
        asked: the harness's tasks.
        built: manifest of the data prefix whose validation rows are scored, if any.

    Raises:
        UserError: the model or a source file is missing.
    """
    from kit19_ray.evaluate import documents, harness, judge_questions

    ours = [task for task in asked if task in documents.TASKS and config.evaluate.source == "files"]
    return {
        "version": VERSION,
        "kit19": __version__,
        "evaluate": config.evaluate.identity(),
        "tasks": asked,
        "task_files": harness.task_files(config.evaluate),
        "model": config.evaluate.endpoint or model_identity(model),
        "documents": {task: documents.hashes(config, task) for task in ours},
        "held_out": built["identity"] if built else None,
        "questions": judge_questions.hashes(config.evaluate.judge),
    }


def _built(data_uri: str) -> DataManifest:
    if manifest.read(data_uri) is None:
        raise EvaluateError(
            f"{data_uri} has no {manifest.NAME}, so its validation rows cannot be scored",
            hint="run `kit19 data` with the same config and root, or set evaluate.held_out=false",
        )
    return manifest.require(data_uri, "data")


def _scores(
    config: Config, model: str, asked: list[str], held_out: str | None, built: DataManifest | None, out: str
) -> tuple[Scores, Outcomes, UnitStore, list[str]]:
    """scores.json, outcomes.json, and the store with its units in order."""
    import transformers

    from kit19_ray.evaluate.actors import ScorerPool
    from kit19_ray.evaluate.endpoint import KEYS, MAX_LENGTH, CharacterTokenizer, Endpoint
    from kit19_ray.evaluate.evaluation import Evaluation
    from kit19_ray.evaluate.ray_lm import RayLM
    from kit19_ray.lm.loaded_model import context_length

    # The harness's requests are cut to the context later; that the tokenizer finds them long is no news.
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    backend: ScorerPool | Endpoint
    if config.evaluate.endpoint:
        section, chat = config.evaluate, config.evaluate.endpoint_api == "chat"
        backend = Endpoint(
            config.evaluate.endpoint, "evaluate.endpoint", KEYS, section.endpoint_model, chat,
            section.endpoint_concurrency,
        )  # fmt: skip
        if not backend.can_score:
            say("evaluate: the endpoint gives no log-probabilities of a prompt: choices are asked for in words")
        lm = RayLM(backend, CharacterTokenizer(chat), MAX_LENGTH, config.evaluate.apply_chat_template)
        model = f"{config.evaluate.endpoint} {backend.model}"
    else:
        tokenizer = pretrained.load_tokenizer(model)
        backend = ScorerPool(normalize_model_uri(model), config.evaluate)
        max_length = context_length(pretrained.load_config(model), tokenizer)
        lm = RayLM(backend, tokenizer, max_length, config.evaluate.apply_chat_template)
    try:
        evaluation = Evaluation(config, lm, out)
        if asked:
            evaluation.harness(asked)
        if held_out and built:
            evaluation.held_out(held_out, built)
        if config.evaluate.judge.questions:
            evaluation.judged(built["prompt"] if built else config.data.prompt)
    finally:
        backend.close()
    scores: Scores = {
        "model": model,
        "data": held_out,
        "ablation": _ablation(model),
        "num_fewshot": list(config.evaluate.num_fewshot),
        "limit": config.evaluate.limit,
        "tasks": evaluation.tasks,
        "groups": evaluation.groups,
        "held_out": evaluation.held_out_scores,
        "judge": evaluation.judge_scores,
        "leaks": leaks(model, evaluation.test_sets),
        "versions": {"kit19-ray": __version__, **{name: version(name) for name in _PACKAGES}},
    }
    return scores, evaluation.outcomes, evaluation.store, evaluation.units


def leaks(model: str, test_sets: list[str]) -> dict[str, Leak]:
    """Per test set whether the model's own data were cleaned of it, by the manifest of the data it was trained on.

    Returns:
        `status`: cleaned (the build dropped `rows` that held an item of it), absent (its files were not at hand when
        the data were built), not cleaned (the build was told not to, or has no such set), trained on (on purpose) or
        unknown (no manifest of the model's data).
    """
    built = _trained_on(model)
    if built is None:
        return {name: {"status": "unknown"} for name in test_sets}
    if built.get("ablation"):
        return {name: {"status": "trained on"} for name in test_sets}
    removed: dict[str, int] = {}
    for task in built["tasks"].values():
        for reason, count in task.get("dropped", {}).items():
            removed[reason] = removed.get(reason, 0) + count
    sets = built.get("decontamination", {})
    out: dict[str, Leak] = {}
    for name in test_sets:
        if name in sets.get("sets", {}):
            out[name] = {"status": "cleaned", "rows": removed.get(f"contaminated_{name}", 0)}
        else:
            out[name] = {"status": "absent" if name in sets.get("absent", []) else "not cleaned"}
    return out


def _trained_on(model: str) -> DataManifest | None:
    """The manifest of the data that a train prefix was trained on; None for any other model."""
    if model.startswith(("http://", "https://")):
        return None
    uri = normalize_model_uri(model)
    made = manifest.read(uri) if "://" in uri else None
    data = manifest.read(made["data"]) if is_train(made) else None
    return data if is_data(data) else None


def _ablation(model: str) -> str | None:
    """The ablation of the data that a train prefix was trained on, so that a leaky model's scores say so."""
    built = _trained_on(model)
    return built.get("ablation") if built else None


def normalize_model_uri(model: str) -> str:
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
    uri = normalize_model_uri(model)
    if "://" not in uri:
        return uri
    made = manifest.read(uri)
    if is_train(made):
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
