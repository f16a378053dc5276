"""What each stage's manifest.json says: the keys one stage writes and others read."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict, TypeGuard, final

from kit19_ray.utils.json_types import Json

Identity = Json
"""What an output depends on: config sections and hashes, of which only the hash of all is ever read again."""
Settings = Json
"""A config section without its runtime fields, as `Section.identity` gives it; `config.schema` says its keys."""


class FileEntry(TypedDict):
    """One file of a prefix, as its manifest lists it."""

    bytes: int
    sha256: str


class TokenizerInfo(TypedDict):
    """Ids and size of a build's tokenizer."""

    eos_token_id: int
    pad_token_id: int
    vocab_size: int


class ShardEntry(TypedDict):
    """A packed shard; `path` is below the data prefix."""

    path: str
    rows: int
    examples: int
    sha256: str


class SplitEntry(TypedDict):
    """A split of a build: its totals and its shards; `labels` are the learned tokens."""

    rows: int
    examples: int
    tokens: int
    labels: int
    packing_efficiency: float
    shards: list[ShardEntry]


class TaskCounts(TypedDict):
    """What a task gives to a build: examples by split, what is repeated or cut, and drops by reason."""

    examples: dict[str, int]
    repeated: int
    tokens: int
    labels: int
    truncated: int
    dropped: dict[str, int]


class ClassShare(TypedDict):
    """What a class gives to a quota: `wanted` is its even share, or the most that a cap lets it give."""

    records: int
    examples: int
    wanted: int


class Guesses(TypedDict):
    """Shares of held-out `rows` that answers get right which understand nothing."""

    rows: int
    majority: float
    lexical: float


class TaskEntry(TaskCounts):
    """A task of a build, from its source rows (`raw`) to its examples; `sha256` is by file of its source."""

    raw: int
    records: int
    unique: int
    quota: int
    shortfall: str
    category: str
    source: str
    licence: str
    splits: list[str]
    sha256: dict[str, str]
    balance: str
    """`data.balance` of this task; `classes` has what each class gives where it is not `source`."""
    classes: dict[str, ClassShare]
    unbalanced: str
    """Says which classes are short of their even share."""
    source_classes: dict[str, int]
    """Rows by label, without copies and what the gates dropped."""
    baseline: Guesses | None
    """None where no held-out row has a label to choose."""


class Decontamination(TypedDict):
    """Evaluation sets that rows were held against, with their files' hashes, and those that were not at hand."""

    sets: dict[str, dict[str, str]]
    absent: list[str]


class BuildOutput(TokenizerInfo):
    """The part of a data manifest that the build itself finds; `toolkit` is the paper's CSV."""

    tasks: dict[str, TaskEntry]
    splits: dict[str, SplitEntry]
    toolkit: str


class DataManifest(BuildOutput):
    """manifest.json of a data prefix."""

    stage: Literal["data"]
    version: int
    identity: str
    seed: int
    config: Settings
    ablation: str | None
    licence_policy: str
    decontamination: Decontamination
    prompt: str
    seq_len: int
    skipped: dict[str, str]


class PoolCounts(TypedDict):
    """What became of a task's source rows; `classes` has the unique ones by label."""

    raw: int
    records: int
    unique: int
    classes: dict[str, int]
    dropped: dict[str, int]


class RecordsManifest(PoolCounts):
    """manifest.json of a task's records; `runs` has the rows of each file and the place of its class, by split."""

    stage: Literal["records"]
    task: str
    runs: dict[str, list[tuple[int, int]]]


class ClassCounts(TypedDict):
    """What a class has: its label, its records, its examples under every template, and its weight."""

    label: str
    records: int
    examples: int
    weight: int


class ExamplesSplit(TypedDict):
    """A split of a task's examples; `parts` is the number of its files.

    `available` examples there would be of any quota, and `withheld` more without `data.free_uses`.
    """

    records: int
    examples: int
    parts: int
    available: int
    withheld: int
    classes: list[ClassCounts]


class ExamplesManifest(TypedDict):
    """manifest.json of a task's examples."""

    stage: Literal["examples"]
    task: str
    splits: dict[str, ExamplesSplit]


class TokensManifest(TypedDict):
    """manifest.json of a task's tokens; `examples` names the prefix they were made from."""

    stage: Literal["tokens"]
    examples: str


class IndexManifest(TypedDict):
    """manifest.json of the index of evaluation items."""

    stage: Literal["index"]
    items: int


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
