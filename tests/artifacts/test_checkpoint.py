"""The table of pieces: what is written is read, any range of it; what is broken is found; what is old goes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.artifacts import checkpoint
from kit19_ray.artifacts.checkpoint import CheckpointIndex, CorruptCheckpoint, Folder, Shard, ShardReader
from kit19_ray.io import storage

BLOCK = 64


def shard(out: str, at: Folder, data: bytes) -> Shard:
    storage.write_bytes(storage.join(at.uri(out), "shard-00000.safetensors"), data)
    blocks = [hashlib.sha256(data[i : i + BLOCK]).hexdigest() for i in range(0, len(data), BLOCK)]
    whole = hashlib.sha256(data).hexdigest()
    return {"path": "shard-00000.safetensors", "size": len(data), "sha256": whole, "blocks": blocks}


def index(step: int, loss: float | None = None, **more: Any) -> CheckpointIndex:
    found: Any = {
        "format": checkpoint.FORMAT, "step": step, "time": 0.0, "validation_loss": loss, "workers": 1, "zero_stage": 2,
        "state": {}, "parameters": {}, "block": BLOCK,
        "shards": [{"path": "x", "size": 1, "sha256": "", "blocks": [""]}],
    }  # fmt: skip
    return found | more


def reader(tmp_path: Path, data: bytes) -> ShardReader:
    out, at = f"file://{tmp_path}", checkpoint.folder(3, "aa")
    return ShardReader(out, at, shard(out, at, data), BLOCK)


def test_a_header_is_read_by_safetensors_itself(tmp_path: Path) -> None:
    from safetensors.numpy import load

    arrays = [np.arange(5, dtype=np.float32), np.arange(3, dtype=np.float32) + 10]
    header = checkpoint.to_header([("layers.0.weight", "w", 0, 5), ("layers.0.weight", "m", 7, 3)])
    data = header + b"".join(array.tobytes() for array in arrays)
    found = load(data)
    assert found["layers.0.weight|w|0"].tolist() == [0, 1, 2, 3, 4]
    assert found["layers.0.weight|m|7"].tolist() == [10, 11, 12]
    entries = reader(tmp_path, data).entries()
    assert [(e.name, e.kind, e.start, e.numel) for e in entries] == [
        ("layers.0.weight", "w", 0, 5),
        ("layers.0.weight", "m", 7, 3),
    ]
    assert data[entries[1].offset :][:12] == arrays[1].tobytes()


@given(st.binary(min_size=1, max_size=500), st.data())
def test_any_range_is_what_was_written(tmp_path_factory: Any, data: bytes, draw: Any) -> None:
    read = reader(tmp_path_factory.mktemp("shard"), data)
    for _ in range(3):
        begin = draw.draw(st.integers(0, len(data)))
        length = draw.draw(st.integers(0, len(data) - begin))
        assert read.read(begin, length) == data[begin : begin + length]


@pytest.mark.parametrize("how", ["altered", "cut off", "missing"])
def test_a_broken_shard_is_found(how: str, tmp_path: Path) -> None:
    data = bytes(range(200))
    read = reader(tmp_path, data)
    path = next(tmp_path.rglob("*.safetensors"))
    if how == "altered":
        path.write_bytes(data[:150] + b"\0" + data[151:])
    elif how == "cut off":
        path.write_bytes(data[:150])
    else:
        path.unlink()
    with pytest.raises(CorruptCheckpoint):
        read.read(100, 90)
    if how == "altered":
        assert read.read(0, 100) == data[:100]  # only the blocks that are read are looked at


def test_more_than_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match="shorter than its own header says"):
        reader(tmp_path, b"123").read(2, 2)


def test_only_a_folder_with_an_index_is_a_checkpoint(tmp_path: Path) -> None:
    out = f"file://{tmp_path}"
    assert checkpoint.folders(out) == [] and checkpoint.newest(out) is None
    whole, half, torn = (checkpoint.folder(step, "ab") for step in (5, 9, 10))
    checkpoint.write_index(out, whole, index(5))
    storage.write_text(f"{half.uri(out)}/shard-00000.safetensors", "")
    storage.write_text(f"{torn.uri(out)}/index.json", json.dumps(index(10))[:40])
    storage.write_text(f"{out}/checkpoints/notes/x", "")
    assert [at.step for at in checkpoint.folders(out)] == [10, 9, 5]
    assert checkpoint.read_index(out, half) is None
    with pytest.raises(CorruptCheckpoint, match="is no index"):
        checkpoint.read_index(out, torn)
    checkpoint.write_index(out, torn, index(10, format=99))
    with pytest.raises(CorruptCheckpoint, match="not of format"):
        checkpoint.read_index(out, torn)
    assert checkpoint.newest(out) == index(5)


def test_the_newest_and_the_best_stay() -> None:
    found = {checkpoint.folder(step, "x"): index(step, loss) for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 5.0))}
    unfinished = {checkpoint.folder(step, "y"): None for step in (1, 3, 6)}
    kept = checkpoint.to_keep(found | unfinished, newest_kept=2, best_kept=1)
    assert sorted((at.step, at.name[-1]) for at in kept) == [(2, "x"), (3, "x"), (4, "x"), (6, "y")]
    assert checkpoint.to_keep({}, 2, 1) == set()


def test_pruning_deletes_the_rest(tmp_path: Path) -> None:
    out = f"file://{tmp_path}"
    for step in (1, 2, 3):
        checkpoint.write_index(out, checkpoint.folder(step, "a"), index(step))
    storage.write_text(f"{checkpoint.folder(2, 'dead').uri(out)}/shard-00000.safetensors", "half")
    gone = checkpoint.prune(out, 2, 0)
    assert [at.name for at in gone] == ["00000001-a", "00000002-dead"]
    assert [at.name for at in checkpoint.folders(out)] == ["00000003-a", "00000002-a"]
