"""One chat task, one score: asked by lm-evaluation-harness's own chat client of our server, and by our actors."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.config.schema import Config, EvaluateConfig, ServeConfig
from kit19_ray.evaluate.actors import ScorerPool
from kit19_ray.evaluate.ray_lm import RayLM
from kit19_ray.lm import pretrained
from kit19_ray.lm.chat_template import chat_template
from kit19_ray.lm.loaded_model import context_length
from kit19_ray.serve import stage
from kit19_ray.utils import ray_session

pytestmark = pytest.mark.ray
QUESTIONS = ["대한민국의 수도는?", "이 영화는 어때?", "가장 큰 항구는?", "두 문장의 뜻이 같은가?", "오늘은 며칠인가?"]
TOKENS = 8


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """CPUs for a server and for actors beside it."""
    with ray_session.connected(cpus=4):
        yield


@pytest.fixture(scope="module")
def exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the chat template that a build puts into its tokenizer."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(tiny_model, folder)
    tokenizer = pretrained.load_tokenizer(str(folder))
    tokenizer.chat_template = chat_template("koalpaca")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(exported: Path, ray_cluster: None) -> Iterator[stage.Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with stage.start(Config(root="file:///unused", serve=ServeConfig(port=port)), str(exported)) as started:
        yield started


def ask(url: str, question: str) -> str:
    body = {"model": "kit19", "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS}
    answer = httpx.post(f"{url}/v1/chat/completions", json={**body, "temperature": 0}, timeout=60, trust_env=False)
    return str(answer.json()["choices"][0]["message"]["content"])


def scores(lm: Any, rows: Path) -> tuple[float, list[str]]:
    """The harness's own exact match, and the answers it saw."""
    from lm_eval import evaluator

    task = {
        "task": "questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": TOKENS, "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    found = evaluator.simple_evaluate(
        lm, tasks=[task], apply_chat_template=True, bootstrap_iters=0, log_samples=True, num_fewshot=0
    )
    samples = sorted(found["samples"]["questions"], key=lambda sample: sample["doc_id"])
    return found["results"]["questions"]["exact_match,none"], [sample["resps"][0][0] for sample in samples]


def test_the_harness_chat_client_gives_the_score_of_the_evaluate_stage(
    server: stage.Server, exported: Path, tmp_path: Path
) -> None:
    from lm_eval.models.openai_completions import LocalChatCompletion

    answers = [ask(server.url, question) for question in QUESTIONS]
    right = [answer if n % 2 else "다른 답" for n, answer in enumerate(answers)]
    rows = tmp_path / "rows.jsonl"
    lines = [{"question": q, "answer": a} for q, a in zip(QUESTIONS, right, strict=True)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    client = LocalChatCompletion(
        base_url=f"{server.url}/v1/chat/completions", model="kit19", num_concurrent=2, max_length=192
    )
    asked = scores(client, rows)
    pool = ScorerPool(str(exported), EvaluateConfig(workers=1, cpus_per_worker=1, batch_tokens=2048))
    try:
        tokenizer = pretrained.load_tokenizer(str(exported))
        length = context_length(pretrained.load_config(str(exported)), tokenizer)
        ours = scores(RayLM(pool, tokenizer, length, templated=True), rows)
    finally:
        pool.close()
    assert ours == asked
    assert asked[0] == pytest.approx(2 / 5) and asked[1] == [answer.split("\n\n")[0] for answer in answers]
