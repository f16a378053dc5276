"""A build in numbers: lengths, labels and templates counted over its example rows, packing and drops from its manifest.

Lengths are counted exactly, so quantiles are too; histograms have bins that grow by the square root of two, the same
ones for every task.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kit19_ray.artifacts.data_manifests import DataManifest, SplitEntry, TaskEntry
from kit19_ray.data.export import example_path
from kit19_ray.data.rendering import FREE_USES
from kit19_ray.io import storage
from kit19_ray.tasks.task import Task

SPLITS = ("train", "validation")
EDGES = sorted({round(2 ** (i / 2)) for i in range(41)})
"""Upper edges of the histogram bins: 1, 2, 3, 4, 6, 8, 11, 16, ... 2^20; a bin holds its edge, the last all above."""
FREE = "free_answer"
"""Stands for the label of an example whose answer is a text of its own."""
_BATCH = 8192  # rows held of a file
_FILES_AT_ONCE = 4


class Distribution(TypedDict):
    """Lengths counted: nearest-rank quantiles, and a histogram {upper edge: count}."""

    count: int
    mean: float
    min: int
    p10: int
    p50: int
    p90: int
    p99: int
    max: int
    histogram: dict[str, int]


class TemplateUse(TypedDict):
    """How often a template was used."""

    kind: str
    examples: int


class SplitStatistics(TypedDict):
    """What a task's examples of one split hold, see `measure`."""

    examples: int
    prompt_characters: Distribution | None
    answer_characters: Distribution | None
    tokens: Distribution | None
    labels: dict[str, int]
    templates: dict[str, TemplateUse]


class PackingStatistics(TypedDict):
    """How a split's rows are filled, in tokens; `efficiency` is all but padding."""

    rows: int
    examples: int
    learned: int
    masked: int
    padding: int
    efficiency: float


class SourceStatistics(TypedDict):
    """What became of a task's source rows, see `source`."""

    rows: int
    unique: int
    repeats: int
    dropped: dict[str, int]
    too_long: int
    free_uses: int
    truncated: int
    repeated: int
    tokens: int


class TaskStatistics(TypedDict):
    """A task in numbers."""

    category: str
    source: SourceStatistics
    train: SplitStatistics
    validation: SplitStatistics


class Statistics(TypedDict):
    """statistics.json."""

    seq_len: int
    packing: dict[str, PackingStatistics]
    tasks: dict[str, TaskStatistics]


def of_build(out: str, built: DataManifest, tasks: Mapping[str, Task]) -> Statistics:
    """The statistics of a data prefix, JSON-ready; streams its examples, one task and split at a time.

    Args:
        out: the prefix.
        built: its manifest.
        tasks: the task of each name in the manifest.
    """
    files = [(name, split) for name in built["tasks"] for split in SPLITS]
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        paths = (storage.join(out, example_path(split, name)) for name, split in files)
        measured = dict(zip(files, pool.map(lambda f, path: measure(_batches(path), tasks[f[0]]), files, paths)))
    return {
        "seq_len": built["seq_len"],
        "packing": {split: packing(built["splits"][split], built["seq_len"]) for split in SPLITS},
        "tasks": {
            name: {
                "category": tasks[name].spec.category,
                "source": source(counts),
                "train": measured[name, "train"],
                "validation": measured[name, "validation"],
            }
            for name, counts in built["tasks"].items()
        },
    }


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    columns = {"instruction", "input", "output", "label", "template", "num_tokens"}
    if storage.exists(path):
        with storage.open_input(path) as stream:
            file = pq.ParquetFile(stream)
            yield from file.iter_batches(_BATCH, columns=[c for c in file.schema_arrow.names if c in columns])


def measure(batches: Iterable[pa.RecordBatch], task: Task) -> SplitStatistics:
    """What a task's example rows hold.

    Args:
        batches: rows with the columns instruction, input, output, label and template, and num_tokens where the build
            wrote it (tokens of the example, 0 for one that was left out as too long).

    Returns:
        `examples`; `prompt_characters`, `answer_characters` and `tokens`, each a `distribution` (None without rows, or
        without the column); `labels` and `templates` with a count each, zeros included.
    """
    prompts: Counter[int] = Counter()
    answers: Counter[int] = Counter()
    tokens: Counter[int] = Counter()
    labels: Counter[int] = Counter()
    templates: Counter[str] = Counter()
    for batch in batches:
        lengths = {name: pc.utf8_length(batch[name]) for name in ("instruction", "input", "output")}
        prompts.update(_counts(pc.add(lengths["instruction"], lengths["input"])))
        answers.update(_counts(lengths["output"]))
        labels.update(_counts(batch["label"]))
        templates.update(_counts(batch["template"]))
        if "num_tokens" in batch.schema.names:
            tokens.update(_counts(batch["num_tokens"]))
    del tokens[0]
    named = {label: labels[i] for i, label in enumerate(task.labels)}
    return {
        "examples": templates.total(),
        "prompt_characters": distribution(prompts),
        "answer_characters": distribution(answers),
        "tokens": distribution(tokens),
        "labels": named | ({FREE: labels[-1]} if labels[-1] or not named else {}),
        "templates": {t.name: {"kind": t.kind, "examples": templates[t.name]} for t in task.spec.templates},
    }


def _counts(values: pa.Array) -> dict[Any, int]:
    counted = pc.value_counts(values)
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))


def distribution(counts: Mapping[int, int]) -> Distribution | None:
    """Mean, nearest-rank quantiles, extremes and a histogram {upper edge: count} of value -> count; None when empty."""
    total = sum(counts.values())
    if not total:
        return None
    values = sorted(value for value, count in counts.items() if count)
    histogram: Counter[int] = Counter()
    for value in values:
        histogram[EDGES[min(bisect_left(EDGES, value), len(EDGES) - 1)]] += counts[value]
    return {
        "count": total,
        "mean": round(sum(value * count for value, count in counts.items()) / total, 2),
        "min": values[0],
        "p10": _quantile(values, counts, 0.1 * total),
        "p50": _quantile(values, counts, 0.5 * total),
        "p90": _quantile(values, counts, 0.9 * total),
        "p99": _quantile(values, counts, 0.99 * total),
        "max": values[-1],
        "histogram": {str(edge): histogram[edge] for edge in EDGES if edge in histogram},
    }


def _quantile(values: list[int], counts: Mapping[int, int], rank: float) -> int:
    below = 0
    for value in values:
        below += counts[value]
        if below >= rank:
            return value
    return values[-1]


def packing(split: SplitEntry, seq_len: int) -> PackingStatistics:
    """How a split's rows are filled: learned, masked (prompt) and padding tokens; `efficiency` is all but padding."""
    capacity = split["rows"] * seq_len
    return {
        "rows": split["rows"],
        "examples": split["examples"],
        "learned": split["labels"],
        "masked": split["tokens"] - split["labels"],
        "padding": capacity - split["tokens"],
        "efficiency": round(split["tokens"] / capacity, 4) if capacity else 0.0,
    }


def source(counts: TaskEntry) -> SourceStatistics:
    """What became of a task's source rows: `rows` = `unique` + `repeats` (equal to another) + all of `dropped`.

    `too_long` and `free_uses` count examples, not source rows, and stand beside.
    """
    of_examples = ("too_long", FREE_USES)
    dropped = {reason: n for reason, n in counts["dropped"].items() if reason not in of_examples}
    return {
        "rows": counts["raw"],
        "unique": counts["unique"],
        "repeats": counts["raw"] - sum(dropped.values()) - counts["unique"],
        "dropped": dropped,
        "too_long": counts["dropped"].get("too_long", 0),
        "free_uses": counts["dropped"].get(FREE_USES, 0),
        "truncated": counts["truncated"],
        "repeated": counts["repeated"],
        "tokens": counts["tokens"],
    }
