"""What a data prefix holds beside its shards: each task's examples and rejects, and the paper's CSV."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from kit19_ray.artifacts.data_manifests import TaskCounts
from kit19_ray.artifacts.schemas import EXAMPLE_SCHEMA
from kit19_ray.data import record_pool, rejects, rendering, tokenize
from kit19_ray.data.filters.near_duplicates import NearDuplicates, RecordFile
from kit19_ray.data.record_pool import SPLITS
from kit19_ray.errors import DataError
from kit19_ray.io import storage
from kit19_ray.lm.prompts import prompt_format

_ROW_GROUP = 512  # examples


@dataclass(frozen=True)
class MixtureEntry:
    """One task's part of a mixture: where its records, examples and tokens are, and how many are taken.

    `parts` is the number of files of examples, and of tokens, by split.
    """

    task: str
    records: str
    record_files: tuple[RecordFile, ...]
    examples: str
    tokens: str
    parts: dict[str, int]
    quotas: dict[str, int]
    removed: NearDuplicates


def example_path(split: str, task: str) -> str:
    """Where a task's examples are, below the data prefix."""
    return f"examples/{split}-{task}.parquet"


def texts(entries: Iterable[MixtureEntry], prompt: str) -> Iterator[str]:
    """Prompt and answer of every training example, task by task: what a BPE is trained on.

    Of a longer conversation these are its first question and its last answer.
    """
    wrapper = prompt_format(prompt)  # a chat template is a published tokenizer's, which is not trained
    for entry in entries:
        for number in range(entry.parts["train"]):
            uri = storage.join(entry.examples, rendering.part_path("train", number))
            for batch in rendering.read(uri, ["instruction", "input", "output"], entry.quotas["train"]):
                for instruction, text, output in zip(*(batch[c].to_pylist() for c in range(3)), strict=True):
                    yield wrapper.render(instruction, text)
                    yield output


def export(out: str, entry: MixtureEntry) -> TaskCounts:
    """Writes one task's examples and rejects below the data prefix and returns its counts."""
    counts: TaskCounts = {
        "examples": dict.fromkeys(SPLITS, 0), "repeated": 0, "tokens": 0, "labels": 0, "truncated": 0, "dropped": {}
    }  # fmt: skip
    dropped: Counter[str] = Counter(entry.removed.table["reason"].to_pylist())
    with tempfile.TemporaryFile() as left:
        with storage.open_input(storage.join(entry.records, record_pool.REJECTS)) as earlier:
            shutil.copyfileobj(earlier, left)
        left.writelines(line.encode() for line in _near_lines(entry))
        for split in SPLITS:
            for too_long in _export_split(out, entry, split, counts):
                dropped["too_long"] += len(too_long)
                left.writelines(line.encode() for line in _too_long_lines(entry.task, too_long))
        if left.tell():
            left.seek(0)
            with storage.open_output(storage.join(out, f"rejects/{entry.task}.jsonl")) as file:
                shutil.copyfileobj(left, file)
    counts["dropped"] = dict(sorted(dropped.items()))
    return counts


def _export_split(out: str, entry: MixtureEntry, split: str, counts: TaskCounts) -> Iterator[pa.Table]:
    """Writes a split's examples, part by part; those that are too long for a packed row come out."""
    quota = entry.quotas[split]
    parts = (_part(entry, split, number, quota) for number in range(entry.parts[split]))
    filled = (part for part in parts if len(part))
    first = next(filled, None)
    if first is None:
        return
    with (
        storage.open_output(storage.join(out, example_path(split, entry.task))) as file,
        pq.ParquetWriter(file, EXAMPLE_SCHEMA, compression="zstd") as writer,
    ):
        waiting = first.slice(0, 0)
        for part in itertools.chain([first], filled):
            counts["examples"][split] += len(part)
            counts["tokens"] += pc.sum(part["num_tokens"]).as_py()
            counts["labels"] += pc.sum(part["learned"]).as_py()
            counts["truncated"] += pc.sum(part["cut"]).as_py()
            if split == "train":
                counts["repeated"] += pc.sum(pc.greater(part["repeat"], 0)).as_py()
            yield part.filter(pc.equal(part["num_tokens"], 0))
            # Row groups are whole whatever the parts, so the bytes hang on the rows alone.
            waiting = pa.concat_tables([waiting, part])
            whole = len(waiting) // _ROW_GROUP * _ROW_GROUP
            if whole:
                writer.write_table(waiting.slice(0, whole).select(EXAMPLE_SCHEMA.names), row_group_size=_ROW_GROUP)
            waiting = waiting.slice(whole)
        if len(waiting):
            writer.write_table(waiting.select(EXAMPLE_SCHEMA.names), row_group_size=_ROW_GROUP)


def _part(entry: MixtureEntry, split: str, number: int, quota: int) -> pa.Table:
    """A part's examples with their number of tokens, the learned ones, and whether the input was cut."""
    path = rendering.part_path(split, number)
    batches = list(rendering.read(storage.join(entry.examples, path), None, quota))
    examples = pa.Table.from_batches(batches, rendering.RANKED)
    columns = ["id", "num_learned", "cut", "input_ids"]
    tokens = tokenize.read(storage.join(entry.tokens, path), columns, [("rank", "<", quota)])
    if not tokens["id"].equals(examples["id"]):
        raise DataError(f"{entry.tokens}/{path}: its rows are not those of the examples: something else wrote there",
                        hint=f"remove {entry.tokens} and run the build again")  # fmt: skip
    lengths = pc.list_value_length(tokens["input_ids"])
    made = examples.set_column(examples.schema.get_field_index("num_tokens"), "num_tokens", lengths)
    made = made.append_column("learned", tokens["num_learned"])
    return made.append_column("cut", tokens["cut"])


def _too_long_lines(task: str, examples: pa.Table) -> Iterator[str]:
    shown = examples.select(["source_id", "instruction", "input", "output"])
    for row in shown.to_pylist():
        yield rejects.line(task, row.pop("source_id"), "too_long", row)


def _near_lines(entry: MixtureEntry) -> Iterator[str]:
    """The reject lines of what near duplicates made leave, in the order of the ids."""
    left = entry.removed.table
    if not len(left):
        return
    found = []
    for file in entry.record_files:
        with storage.open_input(file.uri) as stream:
            table = pq.read_table(stream, columns=["id", "place", "fields"])
        found.append(table.filter(pc.is_in(table["id"], left["id"].combine_chunks())))
    records = pa.concat_tables(found).sort_by("id").to_pylist()
    for record, why in zip(records, left.sort_by("id").to_pylist(), strict=True):
        fields = json.loads(record["fields"])
        yield rejects.line(entry.task, record["place"], why["reason"], fields | {"near": why["near"]})


def export_toolkit(out: str, tasks: Iterable[str], rows: int) -> str:
    """Writes `toolkit_<rows>.csv` with the published columns; the paper's build has 100,000 rows."""
    name = f"toolkit_{rows}.csv"
    schema = pa.schema([(c, pa.string()) for c in ("instruction", "input", "output", "task")])
    with storage.open_output(storage.join(out, name)) as file, pyarrow.csv.CSVWriter(file, schema) as writer:
        for task in tasks:
            path = storage.join(out, example_path("train", task))
            if storage.exists(path):
                with storage.open_input(path) as examples:
                    for batch in pq.ParquetFile(examples).iter_batches(columns=schema.names):
                        writer.write_batch(batch.select(schema.names))
    return name
