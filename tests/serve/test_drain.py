"""SIGTERM at a real server process: streams that run end, and what never would is cut after `serve.drain_seconds`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from kit19_ray.lm.generator import Generator

pytestmark = pytest.mark.ray

PROMPTS = ["이 영화는 정말", "두 문장의 뜻이 같은지", "대한민국의 수도는", "배우의", "질문에 예 또는", "긍정 또는 부정"]
TOKENS = 80


@contextmanager
def serving(model: Path, root: Path, port: int, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`kit19 serve` as a process, which decodes one sequence at a time."""
    options = [f"serve.model={model}", f"serve.port={port}", f"root=file://{root}", "data.cpus=1"]
    options += ["serve.max_batch_size=1", *words]
    command = [sys.executable, "-m", "kit19_ray", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http"), process.stderr.read()
            yield process, url
        finally:
            process.kill()


def read(url: str, prompt: str, begun: threading.Event) -> str:
    """A stream's text; its last event, where that is not the end."""
    body = {"model": "kit19", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    text = ""
    with (
        httpx.Client(timeout=120, trust_env=False) as http,
        http.stream("POST", f"{url}/v1/completions", json={**body, "stream": True}) as response,
    ):
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line == "data: [DONE]":
                return text
            if line.startswith("data: "):
                text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                begun.set()
    return f"{text} and no end"


def test_streams_that_run_when_sigterm_comes_end_with_their_whole_answers(
    tiny_model: Path, generator: Generator, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    ids = [generator.encode(prompt) for prompt in PROMPTS]
    begun = [threading.Event() for _ in PROMPTS]
    with (
        serving(tiny_model, tmp_path, free_port()) as (process, url),
        ThreadPoolExecutor(len(PROMPTS)) as pool,
    ):
        asked = [pool.submit(read, url, prompt, event) for prompt, event in zip(PROMPTS, begun)]
        assert any(event.wait(60) for event in begun[:1]) or any(event.is_set() for event in begun)
        process.send_signal(signal.SIGTERM)
        texts = [one.result() for one in asked]
        assert process.wait(90) == 0
    for text, prompt in zip(texts, ids):
        greedy = generator.generate([prompt], TOKENS)[0].text
        assert text.startswith(greedy) and not text.endswith("no end")


def test_a_stream_that_never_ends_is_cut_after_the_limit(
    tiny_model: Path, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with (
        serving(tiny_model, tmp_path, free_port(), "serve.drain_seconds=1") as (process, url),
        ThreadPoolExecutor(1) as pool,
    ):
        (replica,) = (pid for pid in descendants(process.pid) if b"ServeReplica:kit19-model" in title(pid))
        os.kill(replica, signal.SIGSTOP)  # it never gives a token again
        asked = pool.submit(read, url, PROMPTS[0], threading.Event())
        with pytest.raises(TimeoutError):
            asked.result(timeout=1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        with pytest.raises((httpx.HTTPError, AssertionError)):
            asked.result()


def descendants(pid: int) -> list[int]:
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found += [child, *descendants(child)]
    return found


def title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
