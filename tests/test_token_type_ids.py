"""A base model whose tokenizer returns token_type_ids, as Polyglot-Ko's does, from the build to the served answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from kit19_ray.artifacts import score_files
from kit19_ray.config import loading
from kit19_ray.data import stage as building
from kit19_ray.evaluate import stage as evaluating
from kit19_ray.lm import pretrained
from kit19_ray.serve import stage as serving
from kit19_ray.serve.client import post
from kit19_ray.train import stage as training
from tests.evaluate.conftest import save_model
from tests.serve.conftest import _free_port

NAMES, GIVEN = ["input_ids", "token_type_ids", "attention_mask"], ["input_ids", "attention_mask"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    folder = save_model(tmp_path_factory.mktemp("base"), samples, seq_len=512)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_input_names": NAMES}))
    return folder


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "BertTokenizerFast"])
def test_a_tokenizer_keeps_them_to_itself(kind: str, base: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text((base / "tokenizer.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "model_input_names": NAMES}))
    assert "token_type_ids" in AutoTokenizer.from_pretrained(tmp_path)("a")
    loaded = pretrained.load_tokenizer(str(tmp_path))
    loaded.save_pretrained(tmp_path / "saved")
    for tokenizer in (loaded, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert list(tokenizer("a")) == GIVEN


@pytest.mark.slow
@pytest.mark.ray
def test_no_stage_gives_them_to_a_model(base: Path, tmp_path: Path, ray_cluster: None) -> None:
    assert "token_type_ids" in AutoTokenizer.from_pretrained(base)("가")
    words = [
        f"root={tmp_path}", "data.sources=samples", "data.tasks=[nsmc,apeach]", "data.quota=30", "data.validation=4",
        f"data.tokenizer.name={base}", "data.seq_len=512", f"train.model.name={base}", "train.max_steps=1",
        "train.batch_size=2", "train.micro_batch_size=1", "train.samples=0", "train.trackers=[]",
        "train.max_failures=0", "evaluate.tasks=[kobest_copa]", "evaluate.limit=2", "evaluate.num_fewshot=0",
        f"serve.port={_free_port()}",
    ]  # fmt: skip
    config = loading.load(None, words)
    data = building.run(config)
    out = training.run(config, data)
    for folder in (f"{data}/tokenizer", f"{out}/export"):  # what any other server would read
        assert list(AutoTokenizer.from_pretrained(folder.removeprefix("file://"))("가")) == GIVEN
    scores = score_files.read(evaluating.run(config, out, data))
    assert "kobest_copa" in scores["tasks"] and "nsmc" in scores["held_out"]
    with serving.start(config, str(base)) as server:  # a published model as it is
        said = post(f"{server.url}/v1/completions", {"model": "kit19", "prompt": "이 영화는", "max_tokens": 2}, 300)
    assert said["usage"]["completion_tokens"] >= 1
