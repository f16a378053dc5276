"""The evaluate and the serve stage, looked at."""

from __future__ import annotations

from functools import partial

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.artifacts.stage_manifests import is_train
from kit19_ray.config.schema import Config
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import documents, suites
from kit19_ray.evaluate import stage as scoring
from kit19_ray.io import storage
from kit19_ray.lm import pretrained
from kit19_ray.preflight.base_model import check_named
from kit19_ray.preflight.findings import Findings
from kit19_ray.serve import stage as server


def evaluate(config: Config, train: Findings, built: DataManifest | None) -> Findings:
    """What `kit19 evaluate` would do.

    Args:
        train: the train stage, looked at.
        built: manifest of the data prefix whose validation rows are scored, None where it is not finished.
    """
    waiting = config.evaluate.model is None and train.state in ("to do", "resumable")
    found = Findings("evaluate", state="to do" if waiting else "unknown")
    section = config.evaluate
    asked = suites.expand(section.tasks)
    found.facts = {"tasks": asked, "num_fewshot": section.num_fewshot, "limit": section.limit}
    if not asked and not section.held_out:
        found.missing.append(
            EvaluateError("evaluate.tasks is empty and evaluate.held_out is false: there is nothing to score")
        )
    found.check(lambda: documents.check_source(config, asked))
    if section.source == "files":
        counts = {task: found.check(partial(_documents, config, task)) for task in asked if task in documents.TASKS}
        known = {task: n for task, n in counts.items() if n is not None}
        found.facts |= {
            "documents": known,
            "choices": sum(n * documents.choices(task) for task, n in known.items()),
        }
    if section.held_out and built is not None:
        found.facts["held_out"] = sum(t["examples"]["validation"] for t in built["tasks"].values())
    model = _model(section.model, "evaluate.model", train, found)
    others = [task for task in asked if task not in documents.TASKS]
    if others:
        found.notes.append(f"whether the harness has {', '.join(others)} is seen when the evaluation starts")
    if found.missing or others or model is None or (section.held_out and built is None):
        return found
    identity = found.check(lambda: scoring.identify(config, model, asked, built if section.held_out else None))
    if identity is not None:
        found.uri = manifest.stage_uri(config.root, "evaluate", identity)
        found.state = "to do" if manifest.read(found.uri) is None else "finished"
    return found


def _documents(config: Config, task: str) -> int:
    """Documents of a task's test files that would be scored."""
    tests = [file for file in documents.located(config, task) if file.split == documents.tested(task)]
    count = sum(1 for file in tests for _ in documents.read(task, file))
    return min(count, config.evaluate.limit or count)


def _model(name: str | None, key: str, train: Findings, found: Findings) -> str | None:
    """The model as the stage takes it, None where it is not there yet or cannot be told without a download."""
    if name is None:
        return train.uri if train.state == "finished" else None
    if "://" in name and is_train(found.check(lambda: manifest.read(name))):
        return name
    there = check_named(name, key, "config.json", found)
    # Fingerprints of a remote folder's files would be read from all over it.
    return name if there and not name.startswith("s3://") else None


def serve(config: Config, train: Findings) -> Findings:
    """What `kit19 serve` would do."""
    found = Findings("serve")
    section = config.serve
    model = section.model or train.uri
    found.facts = {
        "model": storage.normalise(model) if model and "://" in model else model,
        "served_name": section.served_name,
        "address": f"{section.host}:{section.port}",
        "replicas": section.replicas,
    }
    _model(section.model, "serve.model", train, found)
    for name, uri in section.models.items():
        _model(uri, f"serve.models.{name}", train, found)
    for adapter in section.adapters.values():
        found.check(partial(pretrained.find_adapter, adapter.path))
    found.check(lambda: server.check_port(section))
    return found
