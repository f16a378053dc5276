"""Which packed rows a step trains on: a pure function of the seed and the step, for any number of workers.

The training split is read in the order of its epochs' permutations, one after the other:

    position   0 ........ N-1 | N ........ 2N-1 | 2N ...       N rows
    epoch           0         |        1        |  2
    step       0    1    2 (crosses into epoch 1)  3 ...       B positions each

Step t covers the positions t*B to (t+1)*B, so nothing is dropped at the end of an epoch, and a resumed run seeks.
The permutation is an argsort of hashes: it depends on no library's random streams.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

NO_ROW = -1  # stands for a forward pass without a row, so that all ranks make the same number of passes


def splitmix64(x: UInt64) -> UInt64:
    """The finaliser of SplitMix64, element by element: a bijection of 64 bits that mixes well."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=2)  # a batch touches two epochs at most unless it is larger than the split
def permutation(seed: int, epoch: int, num_rows: int) -> Int64:
    """The order of the rows in `epoch`: int64 `[num_rows]`, every row once."""
    # Mixed twice, so that neighbouring seeds and epochs have nothing in common.
    key = splitmix64(splitmix64(np.array([seed & (2**64 - 1)], np.uint64)) + np.uint64(epoch))
    order = np.argsort(splitmix64(np.arange(num_rows, dtype=np.uint64) ^ key), kind="stable").astype(np.int64)
    # Cached: a caller that sorted it in place would change every later step.
    order.setflags(write=False)
    return order


def global_batch(seed: int, step: int, num_rows: int, batch_size: int) -> Int64:
    """Rows of step `step` over all workers: int64 `[batch_size]`.

    Raises:
        ValueError: the split has no rows.
    """
    if num_rows < 1:
        raise ValueError("a split without rows has no batches")
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs = positions // num_rows
    rows = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = permutation(seed, int(epoch), num_rows)[positions[here] % num_rows]
    return rows


def rank_rows(batch: Int64, rank: int, world_size: int) -> Int64:
    """The part of a global batch that `rank` trains on: consecutive rows, one more on the first ranks if need be."""
    each, more = divmod(len(batch), world_size)
    begin = rank * each + min(rank, more)
    return batch[begin : begin + each + (rank < more)]


def micro_batches(rows: Int64, size: int, passes: int) -> list[Int64]:
    """`rows` in `passes` pieces of at most `size`; a pass that is left without a row gets NO_ROW.

    Every rank makes the same number of passes, since each is a collective operation.

    Raises:
        ValueError: `passes` pieces cannot hold the rows.
    """
    if len(rows) > size * passes:
        raise ValueError(f"{len(rows)} rows do not go into {passes} passes of {size}")
    pieces = [rows[i * size : (i + 1) * size] for i in range(passes)]
    return [piece if len(piece) else np.array([NO_ROW], np.int64) for piece in pieces]


def validation_passes(num_rows: int, rank: int, world_size: int, size: int) -> list[Int64]:
    """The rows of each forward pass of `rank` over a whole split: every row once over all ranks.

    All ranks get the same number of passes of the same size; what is missing at the end is NO_ROW.
    """
    each = world_size * size
    passes = -(-num_rows // each)
    padded = np.full(passes * each, NO_ROW, np.int64)
    padded[:num_rows] = np.arange(num_rows)
    return list(padded.reshape(passes, world_size, size)[:, rank])
