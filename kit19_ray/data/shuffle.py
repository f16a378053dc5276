"""Rows to where their hash says: the shuffle of a build, through files.

    map task 0   | bucket 0 | bucket 1 | bucket 2 |      one Arrow file a map task, a record batch a bucket
    map task 1   | bucket 0 | bucket 1 | bucket 2 |
                      |
                 reduce task 0 reads the first batch of each, and only that

A file appears whole or not at all and equal tasks write equal bytes, so a task that is tried again, on another node or
by another run, changes nothing. The reader is told which files there are; one that is absent is an error, never fewer
rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kit19_ray.io import storage

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


def bucket_of(hashes: npt.NDArray[np.uint64], num: int) -> npt.NDArray[np.int64]:
    """The bucket of each 64-bit hash: equal ranges of them, so buckets in turn are the hashes in order."""
    # The upper 32 bits decide: 2^32 x num stays below 2^64, so this needs no wider numbers.
    return ((hashes >> np.uint64(32)) * np.uint64(num) >> np.uint64(32)).astype(np.int64)


def write(uri: str, table: pa.Table, buckets: npt.NDArray[np.int64], num: int) -> None:
    """Writes a map task's rows, sorted into `num` buckets; the order within a bucket is the table's."""
    order = np.argsort(buckets, kind="stable")
    edges = np.searchsorted(buckets[order], np.arange(num + 1))
    rows = table.take(pa.array(order)).combine_chunks()
    with storage.open_output(uri) as file, pa.ipc.new_file(file, table.schema, options=_OPTIONS) as writer:
        for start, end in itertools.pairwise(edges):
            part = rows.slice(start, end - start).combine_chunks()
            batches = part.to_batches()
            writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema))


def read(uris: Sequence[str], bucket: int, schema: pa.Schema) -> pa.Table:
    """One bucket of the files named, in their order."""
    batches = []
    for uri in uris:
        with storage.open_input(uri) as file:
            batches.append(pa.ipc.open_file(file).get_batch(bucket))
    return pa.Table.from_batches(batches, schema)
