from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from kit19_ray.artifacts import manifest, packed_shards
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.errors import DataError, StorageError
from kit19_ray.io import storage

SEQ_LEN = 8


def write(root: str, sizes: list[int]) -> tuple[str, np.ndarray]:
    """A data prefix with shards of the given numbers of rows; returns it and all its tokens `[rows, seq_len]`."""
    rng = np.random.default_rng(0)
    entries, tokens = [], []
    for i, rows in enumerate(sizes):
        ids = rng.integers(5, 99, (rows, SEQ_LEN), dtype=np.int32)
        labels = np.where(rng.random((rows, SEQ_LEN)) < 0.5, IGNORE, ids).astype(np.int32)
        data = packed_shards.to_ipc(ids, labels, np.tile(np.arange(SEQ_LEN, dtype=np.int32), (rows, 1)))
        path = f"train/shard-{i:05d}.arrow"
        storage.write_bytes(storage.join(root, path), data)
        entries.append({"path": path, "rows": rows, "sha256": hashlib.sha256(data).hexdigest()})
        tokens.append(np.stack([ids, labels]))
    manifest.commit(root, {"stage": "data", "seq_len": SEQ_LEN, "splits": {"train": {"shards": entries}}})
    return root, np.concatenate(tokens, axis=1)


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KIT19_CACHE", str(tmp_path / "cache"))
    base = request.getfixturevalue("s3_root") if request.param == "s3" else f"file://{tmp_path}"
    return storage.join(base, "data-x")


def test_rows_are_found_by_number_across_shards(root: str) -> None:
    uri, (ids, labels) = write(root, [3, 1, 5])
    split = PackedSplit.open(uri, "train")
    assert len(split) == 9
    wanted = [8, 0, 3, 3, 2]
    rows = split.rows(wanted)
    assert (rows["input_ids"] == ids[wanted]).all() and (rows["labels"] == labels[wanted]).all()
    assert (split.num_labels == (labels != IGNORE).sum(axis=1)).all()
    rows["input_ids"][:] = 0  # a copy: the shard is not written through
    assert (split.rows([8])["input_ids"] == ids[[8]]).all()
    assert split.rows([])["labels"].shape == (0, SEQ_LEN)
    with pytest.raises(IndexError, match="row 9 of a split with 9 rows"):
        split.rows([9])


def test_an_unfinished_prefix_and_an_unknown_split_are_named(root: str) -> None:
    with pytest.raises(StorageError, match="never finished"):
        PackedSplit.open(root, "train")
    write(root, [1])
    with pytest.raises(DataError, match="no split 'dev', only train"):
        PackedSplit.open(root, "dev")


@pytest.mark.s3
def test_an_altered_remote_shard_is_refused(s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KIT19_CACHE", str(tmp_path / "cache"))
    uri, _ = write(storage.join(s3_root, "data-x"), [2])
    storage.write_bytes(storage.join(uri, "train/shard-00000.arrow"), b"other bytes")
    with pytest.raises(StorageError, match="was altered"):
        PackedSplit.open(uri, "train")
