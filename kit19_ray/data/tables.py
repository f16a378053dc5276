"""Parquet files of a build, hashed as they are written, so that a manifest lists them unread."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq

from kit19_ray.io import storage


def write(uri: str, table: pa.Table, row_group: int) -> str:
    """Writes a table that fits memory; the file's SHA-256.

    Args:
        row_group: rows that a reader may take without the others.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=row_group)
    data = sink.getvalue()
    with storage.open_output(uri) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()
