"""The config's `data` section."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from kit19_ray.config.section import RUNTIME, Section
from kit19_ray.errors import nearest, quote

_ENCODINGS = ("utf-8", "cp949", "euc_kr", "johab", "utf-16", "utf-16-le", "utf-16-be", "latin-1")


def known_encoding(name: str) -> str:
    """`name`, if it is a text encoding.

    Raises:
        ValueError: Python knows none of that name.
    """
    try:
        "".encode(name)
    except LookupError:
        raise ValueError(
            f"encoding {quote(name)} is not known{nearest(name, _ENCODINGS)}; Korean files are in cp949 or utf-8"
        ) from None
    return name


class TokenizerConfig(Section):
    """Where the tokenizer comes from: a published one, or one trained on the built examples."""

    name: str | None = None
    """Hub id, local path or s3:// prefix of a tokenizer. None trains a byte-level BPE on the training examples."""
    vocab_size: int = Field(8192, ge=300, le=256_000)
    """Entries of a trained BPE, special tokens included. Without effect when `name` is set."""


class GatesConfig(Section):
    """What a row must pass to become an example. What does not is counted by reason and kept in `rejects/`."""

    duplicates: bool = True
    """Drop rows that equal another of their task but for case and spaces, and all copies of a text with two labels."""
    near_duplicates: float = Field(0.8, gt=0, le=1)
    """Estimated Jaccard similarity of 5-letter shingles from which two texts with the same answer count as one, within
    a task and across sources. 0.8 is NeMo Curator's and Lee et al.'s (arXiv 2107.06499); 1 turns it off."""
    identical_pairs: bool = True
    """Drop rows whose two sentences are one but for case and spaces, of tasks that compare two: they teach nothing, and
    a label that calls them different is wrong."""
    decontaminate: bool = True
    """Drop rows that hold an evaluation item, whole or nearly so; `kit19_ray/sources/evaluation_sets.yaml` has the
    sets."""
    contained: float = Field(0.8, gt=0, le=1)
    """Share of an evaluation text's 5-letter n-grams from which a row counts as holding it, in whatever order, when the
    text has 50 letters or more. Of any text all but one run of at most 5 letters is enough as well."""


class DatasetConfig(Section):
    """Instruction data of one's own, without a task file."""

    path: str = Field(min_length=1, json_schema_extra=RUNTIME)
    """File, folder, s3:// prefix, or a dataset's hub id: .jsonl, .json, .csv, .tsv, .parquet or .txt, and .gz or .zst
    behind. Of the hub the files are copied below the root once. The files' content counts in the identity, not the
    place."""
    split: str | None = Field(None, min_length=1, json_schema_extra=RUNTIME)
    """Only files whose path has this word, such as data/train-00000.parquet. None is `train` for a hub id where its
    files are named so, and every file elsewhere."""
    revision: str | None = Field(None, json_schema_extra=RUNTIME)
    """Commit, tag or branch of a hub id. None means the newest of `main` when it was copied."""
    format: Literal["alpaca", "sharegpt", "messages", "text"]
    """What a row is. alpaca: instruction, input, output. sharegpt: conversations of from and value. messages: turns of
    role and content, as OpenAI has them. text: learned as it is, continued pre-training."""
    name: str | None = Field(None, pattern="^[a-z][a-z0-9_]*$")
    """The task's name, by which quotas, weights and scores know it. None makes one of the path's last part."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our field (instruction, input, output; messages; text) -> the file's column. What is not named is looked for
    under its usual names, and an error says which columns there are."""
    category: str = Field("own", min_length=1, max_length=64)
    """Any name; quotas and weights may be given by it."""
    weight: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Its entry in `data.weights`. None leaves it to `data.quotas` and `data.weights`."""
    licence: str = Field("not stated", min_length=1, max_length=64)
    """As the data card names it. Commercial use and derivatives count as allowed for Apache-2.0, MIT, BSD-3-Clause,
    CC0, CC-BY, CC-BY-SA, ODC-BY and `own`; CC-BY-NC allows derivatives."""


class DataConfig(Section):
    """Sources -> records -> examples -> tokens -> packed shards."""

    sources: str | None = Field(None, json_schema_extra=RUNTIME)
    """Folder or prefix that holds `<source id>/<original file>`. None means `<root>/sources`; `samples` means the
    embedded samples. The files' content counts in the identity, not the place."""
    tasks: list[str] | None = None
    """Tasks to build. None means every task file."""
    tasks_dir: str | None = Field(None, json_schema_extra=RUNTIME)
    """A folder of further task files, found beside the package's own."""
    datasets: list[DatasetConfig] = Field(default_factory=list)
    """Instruction data of one's own beside the tasks, or instead of them (`tasks: []`)."""
    on_missing: Literal["fail", "skip"] = Field("fail", json_schema_extra=RUNTIME)
    """What to do when a task's training files are absent: fail, or leave the task out and say so in the manifest."""
    encoding: dict[str, str] = Field(default_factory=dict)
    """Per source, what its files are in where that is not UTF-8 and no byte order mark says it, e.g. `nsmc: cp949` for
    a file that Korean Excel wrote. Names are Python's: cp949, euc_kr, johab, utf-16-le."""
    verify: bool = Field(True, json_schema_extra=RUNTIME)
    """Check the SHA-256 of every source file whose hash is known."""
    splits: dict[str, list[str]] = Field(default_factory=dict)
    """Per task, the source splits to draw from instead of the task file's own, e.g. `nsmc: [test]` where only that
    file is at hand. Recorded in the manifest and the data card."""
    quota: int = Field(5000, ge=1)
    """Training examples per task. The paper's number."""
    quotas: dict[str, int] = Field(default_factory=dict)
    """Quotas instead of `quota`, by task, pattern (`kobest_*`) or category; the narrower key wins."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Shares of `total`, by task, pattern or category, instead of quotas; a task without one has weight 1, and one
    with 0 is left out."""
    total: int | None = Field(None, ge=1)
    """Training examples of all tasks together, shared out by `weights`. None with weights means `quota` per task."""
    balance: Literal["source", "even", "cap"] = "source"
    """How a task's classes share its training examples. source: as the source has them, the paper's way as far as is
    known. even: equally; a class that is short of records has them used again under other templates, and when it has
    no more the others fill the quota. cap: as the source has them, but none above `cap`. Validation rows stay as the
    source has them, so scores compare."""
    balances: dict[str, Literal["source", "even", "cap"]] = Field(default_factory=dict)
    """`balance` of single tasks, by task, pattern or category, e.g. `{hate_speech: even}`."""
    cap: float = Field(0.5, gt=0, le=1)
    """The most of a task's quota that one class may give under `cap`. A task is short when the others have no more."""
    caps: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Per task and class, `cap` of that class alone, e.g. `hatescore: {clean: 0.4}`; such a task is balanced by cap,
    and its classes that are not named may give all of it."""
    licence_policy: Literal["all", "no-derivatives-excluded", "commercial"] = "all"
    """Which sources may be used: all; those that allow derivatives; those that allow derivatives and commercial use."""
    ablation: Literal["none", "with-test"] = "none"
    """with-test trains on every split, test splits included, and does not decontaminate: what is a leak worth?"""
    gates: GatesConfig = GatesConfig()
    validation: int = Field(250, ge=0)
    """At most this many validation examples per task."""
    validation_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of a task's records that belongs to the validation split, by hash of the record's group."""
    held_out_templates: dict[str, list[str]] = Field(default_factory=dict)
    """Per task, templates that only validation rows are asked with, e.g. `nsmc: [star_rating]`: how well does a model
    take words that it was not taught? Held-out scores are then given for both kinds."""
    repeat: bool = True
    """Use a record again under another template when a task has fewer records than its quota."""
    free_uses: int = Field(3, ge=1)
    """Most examples that one record gives under templates that ask for a text of its own, such as a definition or a
    summary: the same long answer ten times is learned by heart. Such a task may stay short of its quota."""
    prompt: str = "kullm"
    """What stands around instruction and input: a wrapper (kullm, koalpaca, plain), or chat, the chat template of the
    tokenizer that `tokenizer.name` names. The export's tokenizer gets the template of whichever it is."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    seq_len: int = Field(1024, ge=32)
    """Tokens per packed row. A longer example has its input cut so that the answer still fits."""
    examples_per_shard: int = Field(2048, ge=1)
    """Examples that are packed together into one shard file."""
    cpus: int | None = Field(None, ge=1, json_schema_extra=RUNTIME)
    """CPUs for a local Ray cluster. None means all that this process may use, a container's quota counted."""

    @field_validator("encoding")
    @classmethod
    def _known_encodings(cls, encodings: dict[str, str]) -> dict[str, str]:
        return {source: known_encoding(name) for source, name in encodings.items()}

    @model_validator(mode="after")
    def _one_mixture(self) -> DataConfig:
        named = [entry for entry in self.datasets if entry.weight is not None]
        if named and self.quotas:
            raise ValueError("`datasets.weight` and `quotas` exclude each other")
        if self.weights and self.quotas:
            raise ValueError("`weights` and `quotas` exclude each other")
        if self.total is not None and not (self.weights or named):
            raise ValueError(f"total={self.total} is shared out by `weights`, which are not set")
        for name, weight in self.weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"weights.{name}={weight:g} must be 0 or more")
        for name, caps in self.caps.items():
            for label, share in caps.items():
                if not 0 < share <= 1:
                    raise ValueError(f"caps.{name}.{label}={share:g} must be above 0 and at most 1")
        for name, quota in self.quotas.items():
            if quota < 1:
                raise ValueError(f"quotas.{name}={quota} must be 1 or more")
        return self
