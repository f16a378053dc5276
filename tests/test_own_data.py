"""Own data from the file to the export: two steps on Alpaca, ShareGPT, messages and text, 200 rows of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kit19_ray.artifacts import metrics_log
from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.config.schema import Config
from kit19_ray.data import stage as building
from kit19_ray.lm.pretrained import load_tokenizer
from kit19_ray.train import stage as training
from tests.data.test_own_datasets import config, entries, folder, unpacked

pytestmark = pytest.mark.ray
__all__ = ["folder"]  # the fixture of 200 rows of each format

TRAIN: dict[str, Any] = {
    "max_steps": 2, "batch_size": 8, "micro_batch_size": 2, "samples": 0, "trackers": [], "max_failures": 0,
    "model": {"hidden_size": 32, "layers": 2, "heads": 2},
}  # fmt: skip


def conversations(data: str) -> list[list[dict[str, str]]]:
    """The turns of every training example but of plain texts."""
    found = []
    for file in sorted(Path(data.removeprefix("file://"), "examples").glob("train-*.parquet")):
        for row in pq.read_table(file).to_pylist():
            if row["kind"] == "text":
                continue
            turns = json.loads(row["messages"]) if row["messages"] else [
                {"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}
            ]  # fmt: skip
            found.append(turns)
    return found


@pytest.mark.parametrize("prompt", ["chat", "koalpaca"])
def test_the_export_renders_the_tokens_it_was_trained_on(
    prompt: str,
    folder: Path,
    tmp_path: Path,
    ray_cluster: None,
) -> None:
    made = config(folder, tmp_path, entries(folder), "data.tasks=[]", f"data.prompt={prompt}")
    made = Config.model_validate(made.model_dump() | {"train": TRAIN})
    data = building.run(made)
    tuned = training.run(made, data)
    first = metrics_log.read(tuned)[0]
    assert set(first["validation_loss_by_task"]) == {"alpaca", "prose", "share", "talk"}
    tokenizer = load_tokenizer(tuned)
    trained, every = unpacked(data), conversations(data)
    assert len(every) == 3 * 150
    for turns in every:
        ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        if prompt == "chat":  # spaces behind the last turn's end belong to the next one
            ids = ids[: len(ids) - ids[::-1].index(tokenizer.convert_tokens_to_ids("<|im_end|>"))]
        assert tuple(ids) in trained, turns
        answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        end = "<|im_end|>" if prompt == "chat" else tokenizer.eos_token
        assert tokenizer.decode([i for i in trained[tuple(ids)] if i != IGNORE]) == "".join(a + end for a in answers)
