"""Parquet files of a build, hashed as they are written, so that a manifest lists them unread."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from kit19_ray.io import storage


def write(uri: str, table: pa.Table, row_group: int) -> str:
    """Writes a table that fits memory; the file's SHA-256.

    Args:
        row_group: rows that a reader may take without the others.
    """
    sink = pa.BufferOutputStream()
    # Token ids repeat too little for a dictionary of them to be worth its time.
    plain = [field.name for field in table.schema if not pa.types.is_list(field.type)]
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group, use_dictionary=plain)
    data = sink.getvalue()
    with storage.open_output(uri) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def rows_of_texts(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[dict[str, str | None]]:
    """The rows of text columns; `to_pylist` would ask each value for its type."""
    values = (batch.column(name).to_numpy(zero_copy_only=False) for name in columns)
    return (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))
