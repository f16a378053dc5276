"""Examples -> tokens, a part at a time; a prefix is used again while what it depends on is the same.

examples-<hash>/   train-00000    train-00001   ..  .parquet     ranges of `order`
                       |              |         |  tokenizer
tokens-<hash>/     train-00000    train-00001   ..  .parquet     the same rows
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kit19_ray.artifacts.schemas import ExampleTexts
from kit19_ray.data import rendering, tables
from kit19_ray.data.encoding import Encoder
from kit19_ray.io import node_cache, storage
from kit19_ray.lm.prompts import load_prompt
from kit19_ray.lm.text_encoder import TextEncoder

_CHARACTERS = 4 << 20  # tokenized at once: rows may be long
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("task", pa.string()),
        ("order", pa.int64()),
        ("rank", pa.int32()),
        ("num_prompt", pa.int32()),
        ("later", pa.list_(pa.int32())),  # of a conversation: tokens learned and not in turn, behind the prompt
        ("num_learned", pa.int32()),
        ("cut", pa.bool_()),  # whether the input was cut so that the answer fits
        ("input_ids", pa.list_(pa.int32())),  # empty: prompt and answer do not fit
    ]
)
_TEXTS = ["instruction", "input", "output", "messages"]
_COLUMNS = ["id", "task", "kind", *_TEXTS, "order", "rank"]


@dataclass(frozen=True)
class Tokenizing:
    """How examples become tokens; `tokenizer` is the prefix of its files."""

    tokenizer: str
    prompt: str
    eos_id: int
    seq_len: int


def tokenize(how: Tokenizing, part: tuple[str, str]) -> str:
    """Writes one part of one task's tokens; its SHA-256.

    Args:
        part: URI of the examples and of the tokens.
    """
    source, target = part
    encoder = _encoder(how.tokenizer, how.prompt, how.eos_id, how.seq_len)
    batches = [
        _encoded(encoder, piece) for batch in rendering.read(source, _COLUMNS) for piece in _by_characters(batch)
    ]
    return tables.write(target, pa.Table.from_batches(batches, _SCHEMA), rendering.ROW_GROUP)


def read(uri: str, columns: list[str], chosen: list[tuple[str, str, int]]) -> pa.Table:
    """A part of a task's tokens, by ascending `order`.

    Args:
        chosen: conditions on columns, as pyarrow's `filters`.
    """
    with storage.open_input(uri) as file:
        return pq.read_table(file, columns=columns, filters=chosen)


def _by_characters(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    """The batch in pieces of bounded text."""
    lengths = sum(
        (pc.fill_null(pc.utf8_length(batch[name]), 0).to_numpy().astype(np.int64) for name in _TEXTS),
        np.zeros(len(batch), np.int64),
    )
    pieces = np.cumsum(lengths) // _CHARACTERS
    edges = [*np.flatnonzero(np.r_[True, pieces[1:] != pieces[:-1]]), len(batch)] if len(batch) else []
    return [batch.slice(low, high - low) for low, high in itertools.pairwise(edges)]


def _encoded(encoder: Encoder, batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of examples as `_SCHEMA`; ids go from numpy to Arrow without becoming Python numbers."""
    rows = cast("list[ExampleTexts]", [*tables.rows_of_texts(batch, ["kind", *_TEXTS])])
    encoded = encoder.encode(rows)
    ids = [tokens.input_ids if tokens else np.zeros(0, np.int32) for tokens, _ in encoded]
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int32)
    made = {
        "num_prompt": pa.array([tokens.num_prompt if tokens else 0 for tokens, _ in encoded], pa.int32()),
        "later": pa.array([tokens.later if tokens else () for tokens, _ in encoded], pa.list_(pa.int32())),
        "num_learned": pa.array([tokens.num_learned if tokens else 0 for tokens, _ in encoded], pa.int32()),
        "cut": pa.array([cut for _, cut in encoded], pa.bool_()),
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(ids) if ids else np.zeros(0, np.int32))),
    }
    kept = {name: batch.column(name) for name in ("id", "task", "order", "rank")}
    return pa.RecordBatch.from_arrays([(kept | made)[name] for name in _SCHEMA.names], schema=_SCHEMA)


@lru_cache(maxsize=2)
def _encoder(tokenizer: str, prompt: str, eos_id: int, seq_len: int) -> Encoder:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(node_cache.local_dir(tokenizer)), trust_remote_code=False)
    return Encoder(TextEncoder(loaded), load_prompt(prompt, loaded), eos_id, seq_len)
