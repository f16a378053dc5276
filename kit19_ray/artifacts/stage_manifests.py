"""What each stage's manifest.json says: the keys one stage writes and others read."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict, TypeGuard, final

from kit19_ray.artifacts.data_manifests import (
    DataManifest,
    ExamplesManifest,
    IndexManifest,
    RecordsManifest,
    Settings,
    TokensManifest,
)


class BestEntry(TypedDict):
    """The choice of the exported checkpoint: `score` by `name`, `scores` of all by step, `last` the last step taken.

    A score is None where there is none: scoring failed.
    """

    name: str
    step: int
    last: int
    score: float | None
    scores: dict[str, float | None]


class TrainFigures(TypedDict):
    """What a run found out about itself; `seconds` are those of its steps."""

    parameters: int
    trained_parameters: int
    precision: str
    tokens: int
    tokens_per_second: float
    skipped_steps: int
    provenance: dict[str, str]
    seconds: float
    train_loss: NotRequired[float]
    validation_loss: float
    validation_loss_first: float
    best: NotRequired[BestEntry]


@final
class TrainOutput(TrainFigures):
    """What rank 0 returns of a finished run; `files` has the SHA-256 of what was exported."""

    files: dict[str, str]


@final
class Stopped(TypedDict):
    """What rank 0 returns of a run that was asked to stop, and is saved at that step."""

    stopped: int


class TrainManifest(TrainFigures):
    """manifest.json of a train prefix; `export` and `adapter` are folders in it, `files` has their SHA-256."""

    stage: Literal["train"]
    version: int
    export: str
    adapter: NotRequired[str]
    data: str
    prompt: str
    seed: int
    config: Settings
    steps: int
    files: dict[str, str]


class EvaluateIdentity(TypedDict):
    """What scores depend on; its hash names the prefix."""

    version: int
    kit19: str
    evaluate: Settings
    tasks: list[str]
    task_files: dict[str, str]
    model: Any
    documents: dict[str, dict[str, str]]
    held_out: str | None
    questions: dict[str, str]


class EvaluateManifest(EvaluateIdentity):
    """manifest.json of an evaluate prefix; `scores`, `samples` and `report` are files in it."""

    stage: Literal["evaluate"]
    scores: str
    samples: str
    report: str
    model_identity: Any
    data: str | None
    versions: dict[str, str]


class GenerateManifest(TypedDict):
    """manifest.json of what `kit19 generate` wrote; `parts` are the files with the rows, in the rows' order."""

    stage: Literal["generate"]
    job: Any
    model: Any
    prompt: str | None
    rows: int
    errors: dict[str, int]
    """Rows without an answer, by what is wrong with them."""
    parts: list[str]


Manifest = (
    DataManifest
    | RecordsManifest
    | ExamplesManifest
    | TokensManifest
    | IndexManifest
    | TrainManifest
    | EvaluateManifest
    | GenerateManifest
)


def is_data(made: Manifest | None) -> TypeGuard[DataManifest]:
    """Whether there is a manifest, and it is a data prefix's."""
    return made is not None and made.get("stage") == "data"


def is_train(made: Manifest | None) -> TypeGuard[TrainManifest]:
    """Whether there is a manifest, and it is a train prefix's."""
    return made is not None and made.get("stage") == "train"


def is_evaluate(made: Manifest | None) -> TypeGuard[EvaluateManifest]:
    """Whether there is a manifest, and it is an evaluate prefix's."""
    return made is not None and made.get("stage") == "evaluate"
