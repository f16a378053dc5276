"""From examples to tokens, a part of a task at a time; a prefix is used again while what it depends on is the same.

examples-<hash>/train.parquet   | 0 .. 8191 | 8192 .. 16383 | .. |     by ascending `order`
                                      |             |         |  tokenizer
tokens-<hash>/                  train-00000   train-00001    ..  .parquet, the same rows
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kit19_ray.artifacts import manifest
from kit19_ray.data.encoding import Encoder
from kit19_ray.data.prepare import ROW_GROUP, SPLITS, write
from kit19_ray.io import storage
from kit19_ray.lm.model_files import tokenizer_of
from kit19_ray.lm.prompts import prompt_format

Row = dict[str, Any]
PART = 16 * ROW_GROUP  # examples: a large task keeps every CPU at work, a usual one is a single file
_BATCH = 2048  # examples tokenized at once
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("order", pa.int64()),
        ("rank", pa.int32()),
        ("num_prompt", pa.int32()),
        ("cut", pa.bool_()),  # whether the input was cut so that the answer fits
        ("input_ids", pa.list_(pa.int32())),  # empty: prompt and answer do not fit
    ]
)


@dataclass(frozen=True)
class TokensJob:
    """One task's examples -> tokens."""

    examples: str
    out: str
    tokenizer: str
    prompt: str
    eos_id: int
    seq_len: int

    def begin(self) -> list[Row]:
        """Clears the prefix; the parts to make, with the number of their examples."""
        storage.delete(self.out)
        splits = manifest.require(self.examples, "data", "examples")["splits"]
        counts = {split: int(splits[split]["examples"]) for split in SPLITS}
        return [
            {"split": split, "part": number, "rows": min(PART, rows - number * PART)}
            for split, rows in counts.items()
            for number in range(_parts(rows))
        ]

    def commit(self) -> None:
        """Marks the prefix as finished."""
        manifest.commit(self.out, {"stage": "tokens", "examples": self.examples.rpartition("/")[2]})


def tokenize(row: Row, jobs: Mapping[str, TokensJob]) -> Row:
    """Writes one part of one task's tokens; a Ray Data map function."""
    job, split, part = jobs[row["task"]], row["split"], row["part"]
    encoder = _encoder(job.tokenizer, job.prompt, job.eos_id, job.seq_len)
    batches = [_encoded(encoder, batch) for batch in _batches(job.examples, split, part)]
    write(job.out, _name(split, part), pa.Table.from_batches(batches, _SCHEMA))
    return {"task": row["task"]}


def read(uri: str, split: str, columns: list[str], chosen: list[tuple[str, str, int]]) -> pa.Table:
    """A task's tokens, by ascending `order`.

    Args:
        chosen: conditions on columns, as pyarrow's `filters`.
    """
    parts = [info.path for info in storage.list_files(uri) if info.path.startswith(f"{split}-")]
    tables = []
    for part in parts:
        with storage.open_input(storage.join(uri, part)) as file:
            tables.append(pq.read_table(file, columns=columns, filters=chosen))
    return pa.concat_tables(tables)


def _parts(rows: int) -> int:
    return max(1, -(-rows // PART))  # an empty split has an empty file


def _name(split: str, part: int) -> str:
    return f"{split}-{part:05d}"


def _batches(uri: str, split: str, part: int) -> Iterator[pa.RecordBatch]:
    """What is needed of a part's examples to tokenize them."""
    columns = ["id", "task", "instruction", "input", "output", "order", "rank"]
    first = part * PART // ROW_GROUP
    with storage.open_input(storage.join(uri, f"{split}.parquet")) as file:
        parquet = pq.ParquetFile(file)
        groups = range(first, min(first + PART // ROW_GROUP, parquet.num_row_groups))
        yield from parquet.iter_batches(batch_size=_BATCH, row_groups=list(groups), columns=columns)


def _encoded(encoder: Encoder, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of examples as `_SCHEMA`; ids go from numpy to Arrow without becoming Python numbers."""
    encoded = encoder.encode(batch.select(["instruction", "input", "output"]).to_pylist())
    ids = [tokens.input_ids if tokens else np.zeros(0, np.int32) for tokens, _ in encoded]
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int32)
    made = {
        "num_prompt": pa.array([tokens.num_prompt if tokens else 0 for tokens, _ in encoded], pa.int32()),
        "cut": pa.array([cut for _, cut in encoded], pa.bool_()),
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(ids) if ids else np.zeros(0, np.int32))),
    }
    kept = {name: batch.column(name) for name in ("id", "task", "order", "rank")}
    return pa.RecordBatch.from_arrays([(kept | made)[name] for name in _SCHEMA.names], schema=_SCHEMA)


@lru_cache(maxsize=2)
def _encoder(tokenizer: str, prompt: str, eos_id: int, seq_len: int) -> Encoder:
    return Encoder(tokenizer_of(storage.read_text(tokenizer), tokenizer), prompt_format(prompt), eos_id, seq_len)
