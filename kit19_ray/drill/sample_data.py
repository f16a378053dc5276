"""A data prefix of a few kilobytes, in the layout and by the conventions of the data stage: enough to train on."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kit19_ray.artifacts import manifest, packed_shards
from kit19_ray.io import storage
from kit19_ray.utils.hashing import sha256_stream
from kit19_ray.utils.json_types import Json

SEQ_LEN, VOCAB, EOS = 64, 300, 0
Int32 = npt.NDArray[np.int32]


def write(
    root: str,
    train_rows: int = 66,
    validation_rows: int = 7,
    seq_len: int = SEQ_LEN,
    vocab_size: int = VOCAB,
    lengths: tuple[int, int] = (8, 40),
) -> str:
    """Writes a finished data prefix below `root`: packed examples whose answer counts up from the prompt's first token.

    The rows divide neither by usual batches nor by usual numbers of workers.

    Args:
        lengths: tokens of an example, from the first to before the second; its last quarter is learned.

    Returns:
        Its URI.
    """
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    rng = np.random.default_rng(19)
    uri = storage.join(root, "data-synthetic")
    splits: Json = {}
    for split, rows in (("train", train_rows), ("validation", validation_rows)):
        input_ids, labels, position_ids = (
            np.stack(column)
            for column in zip(*(packed_row(rng, seq_len, vocab_size, lengths) for _ in range(rows)), strict=True)
        )
        data = packed_shards.to_ipc(input_ids, labels, position_ids)
        path = f"{split}/shard-00000.arrow"
        storage.write_bytes(storage.join(uri, path), data)
        if split == "validation":
            tasks = [["odd" if at % 2 else "even" for at in range(int((row == 0).sum()))] for row in position_ids]
            storage.write_text(storage.join(uri, packed_shards.tasks_path(path)), packed_shards.tasks_to_json(tasks))
        shard = {"path": path, "rows": rows, "sha256": sha256_stream(io.BytesIO(data))[0]}
        splits[split] = {"rows": rows, "labels": int((labels != -100).sum()), "shards": [shard]}
    words = {"<eos>": EOS} | {f"w{i}": i for i in range(1, vocab_size)}
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers does not type it
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<eos>")), eos_token="<eos>"
    )
    with tempfile.TemporaryDirectory(prefix="kit19-tokenizer-") as folder:
        tokenizer.save_pretrained(folder)
        storage.upload_dir(Path(folder), storage.join(uri, "tokenizer"))
    built: Any = {  # as much of a data prefix's manifest as training reads
        "stage": "data", "seq_len": seq_len, "eos_token_id": EOS, "pad_token_id": EOS, "vocab_size": vocab_size,
        "prompt": "kullm", "splits": splits, "tasks": {},
    }  # fmt: skip
    manifest.commit(uri, built)
    return uri


def packed_row(
    rng: np.random.Generator, seq_len: int, vocab_size: int, lengths: tuple[int, int]
) -> tuple[Int32, Int32, Int32]:
    """Tokens, labels and positions of one row, see `write`."""
    ids = rng.integers(3, vocab_size, seq_len).astype(np.int32)
    labels = np.full(seq_len, -100, np.int32)
    places = np.zeros(seq_len, np.int32)
    at = 0
    while at < seq_len:
        end = min(at + int(rng.integers(*lengths)), seq_len)
        answer = at + max(1, (end - at) * 3 // 4)
        ids[answer:end] = (ids[at] + np.arange(end - answer)) % vocab_size
        labels[answer:end] = ids[answer:end]
        places[at:end] = np.arange(end - at)
        at = end
    return ids, labels, places
