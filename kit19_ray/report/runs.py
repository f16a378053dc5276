"""The runs of a report: train and evaluate prefixes, found and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from kit19_ray.artifacts import manifest, metrics_log, run_start, score_files
from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.artifacts.metrics_log import MetricsLine
from kit19_ray.artifacts.score_files import Outcomes, Scores
from kit19_ray.artifacts.stage_manifests import (
    EvaluateManifest,
    Manifest,
    TrainManifest,
    is_data,
    is_evaluate,
    is_train,
)
from kit19_ray.errors import StorageError, nearest
from kit19_ray.io import storage

_STAGES = ("train", "evaluate")


@dataclass(frozen=True)
class ComparedRun:
    """One column of a comparison: a training, its evaluation, or both.

    Attributes:
        name: of the prefix; both where a training was evaluated more than once.
        train, evaluate: manifests; None where there is no such part.
        data: manifest of the data prefix trained on, None where it is gone.
        lines: metrics.jsonl.
        scores: scores.json.
        outcomes: each document's own figure; empty for an evaluation that kept none.
    """

    name: str
    train_uri: str | None = None
    train: TrainManifest | None = None
    data: DataManifest | None = None
    lines: list[MetricsLine] = field(default_factory=list)
    evaluate_uri: str | None = None
    evaluate: EvaluateManifest | None = None
    scores: Scores | None = None
    outcomes: Outcomes = field(default_factory=dict)


def collect(named: Sequence[str], root: str | None) -> list[ComparedRun]:
    """The runs behind the names, each training beside its evaluations.

    Args:
        named: train or evaluate prefixes, by URI or by name below `root`, a training under way among them; or roots,
            which stand for all finished runs below them. None at all stands for `root`.
        root: where names without a folder are looked for.

    Raises:
        StorageError: a prefix is not there, not finished or of another stage, or nothing is finished below a root.
    """
    trained: dict[str, TrainManifest] = {}
    scored: dict[str, EvaluateManifest] = {}
    for name in named or [root or ""]:
        for uri, made in _prefixes(name, root).items():
            if is_train(made):
                trained[uri] = made
            elif is_evaluate(made):
                scored[uri] = made
    asked = dict(scored)
    for uri in trained:  # a training alone brings the evaluations that stand beside it
        if all(made["model"] != uri for made in asked.values()):
            scored |= {u: m for u, m in _below(_parent(uri)).items() if is_evaluate(m) and m["model"] == uri}
    runs = []
    for uri, made in scored.items():
        model = str(made["model"])
        trained_on = trained.get(model) or _train_manifest(model)
        several = sum(other["model"] == model for other in scored.values()) > 1
        runs.append(_read(uri, made, model if trained_on else None, trained_on, several))
    bare = [uri for uri in trained if all(made["model"] != uri for made in scored.values())]
    return [*(_read(None, None, uri, trained[uri], False) for uri in bare), *runs]


def _prefixes(name: str, root: str | None) -> dict[str, Manifest]:
    if not name:
        raise StorageError("no run is named and no root is set", hint="name a run or a root, or set KIT19_ROOT")
    uri = storage.join(root, name) if root and "/" not in name else storage.normalise(name)
    made = manifest.read(uri)
    if made is None and (started := run_start.read(uri)) is not None:
        return {uri: _under_way(uri, started)}
    if made is None:
        below = _below(uri)
        if below:
            return below
        raise StorageError(*_absent(uri))
    if not (is_train(made) or is_evaluate(made)):
        raise StorageError(f"{uri} is a {made.get('stage')} prefix: a report compares {' and '.join(_STAGES)} prefixes")
    return {uri: made}


def _under_way(uri: str, started: run_start.RunStart) -> TrainManifest:
    """What can be said of a training that is not finished, as its manifest will have it; what cannot is absent."""
    newest, losses = metrics_log.newest(uri), [line.get("validation_loss") for line in metrics_log.read(uri)]
    told = [loss for loss in losses if loss is not None]
    known = {"validation_loss_first": told[0], "validation_loss": told[-1]} if told else {}
    speed = newest.get("tokens_per_second")
    return cast(TrainManifest, {**started, **known, **({"tokens_per_second": speed} if speed else {})})


def _absent(uri: str) -> tuple[str, str]:
    """Message and hint for a prefix without a manifest."""
    name = uri.rsplit("/", 1)[1]
    beside = sorted(other.rsplit("/", 1)[1] for other in _below(_parent(uri)))
    near = nearest(name, [other for other in beside if other != name])
    hint = f"finished there: {', '.join(beside)}" if beside else ""
    if name.startswith(tuple(f"{stage}-" for stage in _STAGES)) and storage.exists(uri):
        verb = name.partition("-")[0]
        return (
            f"{uri} is not finished, so it has no {manifest.NAME}{near}",
            hint or f"run `kit19 {verb}` again to go on",
        )
    return f"{uri} is neither a train or evaluate prefix nor a root with finished ones{near}", hint


def _parent(uri: str) -> str:
    return uri.rsplit("/", 1)[0]


def _below(uri: str) -> dict[str, Manifest]:
    """The finished train and evaluate prefixes directly below a root."""
    names = [n for n in storage.list_dirs(uri) if n.startswith(tuple(f"{stage}-" for stage in _STAGES))]
    made = {storage.join(uri, name): manifest.read(storage.join(uri, name)) for name in names}
    return {uri: found for uri, found in made.items() if found is not None}


def _train_manifest(model: str) -> TrainManifest | None:
    """The manifest of an evaluated train prefix; None for any other model, and for one that is gone."""
    if "://" not in model:
        return None
    made = manifest.read(model)
    return made if is_train(made) else None


def _read(
    evaluate_uri: str | None,
    evaluate: EvaluateManifest | None,
    train_uri: str | None,
    train: TrainManifest | None,
    several: bool,
) -> ComparedRun:
    names = [uri.rsplit("/", 1)[1] for uri in (train_uri, evaluate_uri) if uri]
    if train and train_uri and not train.get("export"):  # under way, see `_under_way`
        names[0] += f" (step {metrics_log.newest(train_uri).get('step', 0):,} so far)"
    data = manifest.read(train["data"]) if train else None
    return ComparedRun(
        name=" / ".join(names) if several else names[0],
        train_uri=train_uri,
        train=train,
        data=data if is_data(data) else None,
        lines=metrics_log.read(train_uri) if train_uri else [],
        evaluate_uri=evaluate_uri,
        evaluate=evaluate,
        scores=score_files.read(evaluate_uri) if evaluate_uri and evaluate else None,
        outcomes=score_files.read_outcomes(evaluate_uri) if evaluate_uri else {},
    )
