"""What the manifests of the data stage's prefixes hold: shards, splits, counts by task, pools, the evaluation index."""

from __future__ import annotations

from typing import Literal, TypedDict

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
