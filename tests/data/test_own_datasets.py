"""Alpaca, ShareGPT, messages and text of one's own, built beside a task of KIT-19 with a chat template."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.artifacts.schemas import IGNORE
from kit19_ray.config import loading
from kit19_ray.config.schema import Config, DatasetConfig
from kit19_ray.data import own_datasets, stage
from kit19_ray.data.tokenizer import train_bpe
from kit19_ray.errors import ConfigError, SourceError
from tests.lm.test_prompts import CHATML

TOPICS = [f"{place} {thing}" for place in ("바닷가", "산골", "도시", "시장", "학교") for thing in range(40)]


def talk(topic: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"{topic} 이야기를 들려주세요."},
        {"role": "assistant", "content": f"{topic}에는 오래된 나무가 있었습니다."},
        {"role": "user", "content": f"{topic}의 나무는 지금도 있나요?"},
        {"role": "assistant", "content": f"네, {topic}에 가면 볼 수 있습니다."},
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 rows of each format, and a tokenizer with a chat template."""
    made = tmp_path_factory.mktemp("own")
    lines = {
        "alpaca.jsonl": [
            {"instruction": f"{t}에 대해 쓰세요.", "input": "", "output": f"{t}는 좋습니다."} for t in TOPICS
        ],
        "share.jsonl": [
            {"conversations": [{"from": m["role"], "value": m["content"]} for m in talk(t)]} for t in TOPICS
        ],
        "talk.jsonl": [{"messages": [{"role": "system", "content": "짧게."}, *talk(f"옛 {t}")]} for t in TOPICS],
    }
    for name, rows in lines.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (made / name).write_text(text, encoding="utf-8")
    (made / "prose.txt").write_text("".join(f"{t}의 아침은 조용하다. " * 20 + "\n" for t in TOPICS), encoding="utf-8")
    tokenizer = train_bpe([m["content"] for t in TOPICS for m in talk(t)], 600, 96)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(str(made / "tokenizer"))
    return made


def config(folder: Path, root: Path, datasets: Sequence[dict[str, Any]], *words: str) -> Config:
    return loading.load(
        None,
        [
            f"root={root}", "data.sources=samples", "data.tasks=[nsmc]", "data.quota=150", "data.validation=3",
            f"data.datasets={json.dumps(list(datasets))}", f"data.tokenizer.name={folder}/tokenizer",
            "data.prompt=chat", "data.seq_len=160", "data.gates.near_duplicates=1", *words,
        ],
    )  # fmt: skip


def entries(folder: Path) -> list[dict[str, Any]]:
    return [
        {"path": f"{folder}/alpaca.jsonl", "format": "alpaca", "licence": "CC-BY-4.0"},
        {"path": f"{folder}/share.jsonl", "format": "sharegpt", "category": "stories"},
        {"path": f"{folder}/talk.jsonl", "format": "messages"},
        {"path": f"{folder}/prose.txt", "format": "text"},
    ]


def test_what_is_learned_is_what_the_template_renders(folder: Path, tmp_path: Path, ray_cluster: None) -> None:
    from transformers import AutoTokenizer

    uri = stage.run(config(folder, tmp_path, entries(folder)))
    built = manifest.require(uri, "data")
    assert {n: t["examples"]["train"] for n, t in built["tasks"].items()} | {"nsmc": 0} == {
        "alpaca": 150, "nsmc": 0, "prose": 150, "share": 150, "talk": 150
    }  # fmt: skip
    assert built["tasks"]["share"]["category"] == "stories" and built["tasks"]["alpaca"]["licence"] == "CC-BY-4.0"
    assert not any(t["dropped"] for n, t in built["tasks"].items() if n != "nsmc")
    path = uri.removeprefix("file://")
    tokenizer = AutoTokenizer.from_pretrained(f"{path}/tokenizer")
    files = sorted(Path(path, "examples").glob("train-*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    trained = unpacked(uri)
    for row in rows:
        if row["kind"] == "text":
            continue
        asked = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
        turns = json.loads(row["messages"]) if row["messages"] else [
            {"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}
        ]  # fmt: skip
        whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        ids = tuple(whole[: len(whole) - 1 - whole[::-1].index(tokenizer.convert_tokens_to_ids("<|im_end|>")) + 1])
        if len(ids) > 160:  # an input that was cut, of the one task that is not ours
            assert row["task"] == "nsmc"
            continue
        assert ids in trained, row
        learned = tokenizer.decode([i for i in trained[ids] if i != IGNORE], skip_special_tokens=False)
        assert learned == "".join(t["content"] + "<|im_end|>" for t in turns if t["role"] == "assistant")
    text = {t for t in trained if "아침은" in tokenizer.decode(t)}
    assert max(map(len, text)) == 160  # a long text goes on in another row
    whole_texts = {r["output"] for r in rows if r["kind"] == "text"}
    assert sum(len(t) for t in text) == sum(len(tokenizer.encode(t, add_special_tokens=False)) + 1 for t in whole_texts)
    card = Path(path, "README.md").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in card and "not stated" in card


def unpacked(uri: str) -> dict[tuple[int, ...], list[int]]:
    """Every example of the packed rows: ids -> labels."""
    split = PackedSplit.open(uri, "train")
    rows = split.rows(range(len(split)))
    found: dict[tuple[int, ...], list[int]] = {}
    for ids, labels, positions in zip(*(rows[c] for c in ("input_ids", "labels", "position_ids")), strict=True):
        starts = [*(positions == 0).nonzero()[0].tolist(), len(ids)]
        for start, end in itertools.pairwise(starts):
            if (labels[start:end] != IGNORE).any():
                found[tuple(ids[start:end].tolist())] = labels[start:end].tolist()
    return found


def test_compressed_own_data_alone_under_a_wrapper(folder: Path, tmp_path: Path, ray_cluster: None) -> None:
    from transformers import AutoTokenizer

    packed = tmp_path / "many"
    packed.mkdir()
    (packed / "a.jsonl.gz").write_bytes(gzip.compress((folder / "share.jsonl").read_bytes()))
    (packed / "notes.md").write_text("not data")
    words = ["data.tasks=[]", "data.prompt=koalpaca", "data.seq_len=160"]
    uri = stage.run(config(folder, tmp_path, [{"path": str(packed), "format": "sharegpt"}], *words))
    assert manifest.require(uri, "data")["tasks"]["many"]["raw"] == 200
    tokenizer = AutoTokenizer.from_pretrained(f"{uri.removeprefix('file://')}/tokenizer")
    trained = unpacked(uri)
    turns = talk(TOPICS[0])
    rendered = tokenizer.apply_chat_template(turns, tokenize=False)
    assert rendered in {tokenizer.decode(ids) for ids in trained} or len(trained) < 200
    assert any(tokenizer.decode(ids).count("### 답변:") == 2 for ids in trained)


def test_names_weights_and_licences(folder: Path) -> None:
    def entry(**fields: Any) -> DatasetConfig:
        return DatasetConfig.model_validate({"path": "x/My Data.v2.jsonl", "format": "text", **fields})

    assert own_datasets.name_of(entry()) == "my_data"
    assert own_datasets.name_of(entry(path="s3://b/2024/")) == "own_2024"
    assert own_datasets.name_of(entry(name="talk")) == "talk"
    with pytest.raises(SourceError, match="there is a task 'nsmc' already"):
        own_datasets.tasks([entry(name="nsmc")], ["nsmc"])
    found = own_datasets.tasks(
        [entry(name="a", licence="MIT"), entry(name="b", licence="CC-BY-NC-4.0"), entry(name="c")], []
    )
    licences = {n: (t.source.licence.commercial, t.source.licence.derivatives) for n, t in found.items()}
    assert licences == {"a": (True, True), "b": (False, True), "c": (False, False)}
    with pytest.raises(SourceError, match=r"(?s)alpacca.jsonl: no such file.*did you mean 'alpaca.jsonl'"):
        own_datasets.locate(entry(path=f"{folder}/alpacca.jsonl"), f"file://{folder}")
    with pytest.raises(ConfigError, match="exclude each other"):
        loading.load(None, ["data.quotas.nsmc=3", 'data.datasets=[{"path": "x", "format": "text", "weight": 2}]'])
