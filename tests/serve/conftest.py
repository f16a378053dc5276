"""A byte-level BPE and a GPT-NeoX small enough to load in a second."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.config.schema import Config, ServeConfig
from kit19_ray.data.tokenizer import train_bpe
from kit19_ray.lm import pretrained
from kit19_ray.lm.generator import Generator
from kit19_ray.serve import stage

TEXTS = [
    "이 영화는 정말 재미있다. 배우의 연기가 훌륭하다.",
    "다음 문장의 감정을 긍정 또는 부정으로 분류하세요.",
    "두 문장의 뜻이 같은지 다른지 말해 주세요.",
    "대한민국의 수도는 서울이고 가장 큰 항구는 부산이다.",
    "질문에 예 또는 아니오로 답하세요. 답변: 예",
]
CONTEXT = 128


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    return train_bpe(TEXTS * 4, 400, CONTEXT)


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights and the tokenizer, as `from_pretrained` reads it."""
    folder = tmp_path_factory.mktemp("serve") / "model"
    model = pretrained.build_gpt_neox(
        hidden_size=32,
        layers=2,
        heads=4,
        intermediate_size=None,
        vocab_size=len(tiny_tokenizer),
        seq_len=CONTEXT,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
        seed=3,
    )
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives a port nobody listens on."""
    return _free_port


@pytest.fixture(scope="module")
def server(ray_cluster: None, tiny_model: Path) -> Iterator[stage.Server]:
    section = ServeConfig(
        port=_free_port(),
        prompt="koalpaca",
        max_tokens=64,
        max_prompt_chars=500,
        max_body_bytes=2 << 20,
    )
    with stage.start(Config(root="file:///unused", serve=section), str(tiny_model)) as started:
        yield started


@pytest.fixture(scope="module")
def http(server: stage.Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return Generator.load(str(tiny_model))
