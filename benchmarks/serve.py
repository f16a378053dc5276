"""Requests per second and time to first token, streamed: this server beside `generate` one by one behind FastAPI.

    python benchmarks/serve.py [--tokens 32] [--rounds 2]

One fresh GPT-NeoX of 8.8 M parameters, float32, all cores for either side; the same prompts, greedy, the same number of
tokens. Each server is a process of its own, and idle while the other is measured; the two take turns, and a ratio is
the median over the rounds. The peer is what one writes first: a lock, `model.generate` with a streamer, an event a
token. The texts of both are compared as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environment import describe
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

CONCURRENCY = {1: 4, 8: 16, 32: 32}  # requests sent at each
SIZES = {"hidden_size": 256, "layers": 6, "heads": 8, "intermediate_size": None, "seq_len": 512}
TEXTS = [
    "다음 문장의 감정을 긍정 또는 부정으로 분류하세요. 이 영화는 정말 재미있다.",
    "두 문장의 뜻이 같은지 다른지 말해 주세요. 비가 온다. 하늘이 맑다.",
    "대한민국의 수도는 서울이고 가장 큰 항구는 부산이다. 질문에 예 또는 아니오로 답하세요.",
    "배우의 연기가 훌륭하다. 한 문장으로 요약해 주세요.",
]


def build(folder: str) -> int:
    """Saves the model with its tokenizer; its number of parameters."""
    from kit19_ray.data.tokenizer import train_bpe
    from kit19_ray.lm import pretrained

    tokenizer = train_bpe(TEXTS * 4, 8192, SIZES["seq_len"])
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = pretrained.build_gpt_neox(vocab_size=8192, seed=19, **ids, **SIZES)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def peer(folder: str, port: int) -> None:
    """Serves the peer until it is killed."""
    import queue
    import threading

    import torch
    import uvicorn
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.generation.streamers import BaseStreamer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    lock, app = threading.Lock(), FastAPI()

    class Tokens(BaseStreamer):
        def __init__(self) -> None:
            self.queue: queue.Queue[Any] = queue.Queue()

        def put(self, value: Any) -> None:
            self.queue.put(value)

        def end(self) -> None:
            self.queue.put(None)

    @app.post("/v1/completions")
    async def completions(request: Request) -> StreamingResponse:
        body = await request.json()

        def events() -> Any:
            inputs = tokenizer(body["prompt"], return_tensors="pt", add_special_tokens=False)
            inputs.pop("token_type_ids", None)
            with lock, torch.inference_mode():
                streamer = Tokens()
                options = {"max_new_tokens": body["max_tokens"], "do_sample": False, "streamer": streamer}
                work = threading.Thread(target=lambda: model.generate(**inputs, **options))
                work.start()
                streamer.queue.get()  # the prompt
                ids: list[int] = []
                sent = ""
                while (token := streamer.queue.get()) is not None:
                    ids += token.tolist()
                    text = tokenizer.decode(ids)
                    if not text.endswith("\ufffd"):
                        yield f"data: {json.dumps({'choices': [{'text': text[len(sent) :]}]})}\n\n"
                        sent = text
                work.join()
            yield f"data: {json.dumps({'choices': [{'text': tokenizer.decode(ids)[len(sent) :]}]})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    uvicorn.run(app, port=port, log_level="error")


async def measured(url: str, concurrency: int, tokens: int) -> tuple[dict[str, float], list[str]]:
    """Requests per second, median milliseconds to the first text; and the texts."""
    import httpx

    gate, firsts = asyncio.Semaphore(concurrency), []

    async def one(client: httpx.AsyncClient, number: int) -> str:
        body = {"model": "kit19", "prompt": TEXTS[number % len(TEXTS)], "max_tokens": tokens}
        async with gate:
            start, text = time.perf_counter(), ""
            body |= {"temperature": 0, "stream": True}
            async with client.stream("POST", f"{url}/v1/completions", json=body) as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        if not text:
                            firsts.append(time.perf_counter() - start)
                        text += json.loads(line[6:])["choices"][0]["text"]
            return text

    async with httpx.AsyncClient(timeout=300, trust_env=False, limits=httpx.Limits(max_connections=None)) as client:
        start = time.perf_counter()
        texts = await asyncio.gather(*(one(client, n) for n in range(CONCURRENCY[concurrency])))
        seconds = time.perf_counter() - start
    first = 1000 * statistics.median(firsts)
    return {"requests_per_second": len(texts) / seconds, "first_token_ms": first}, list(texts)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_peer(url: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    while process.poll() is None:
        try:
            httpx.get(url, timeout=5, trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit("the peer did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each completion")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        peer(args.peer[0], int(args.peer[1]))
        return

    from kit19_ray.config.schema import Config, ServeConfig
    from kit19_ray.serve import stage
    from kit19_ray.utils import ray_session

    ray_session.environment()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the peer and the server end with this
    rounds: list[dict[str, dict[str, float]]] = []
    same = True
    with tempfile.TemporaryDirectory() as folder:
        parameters = build(folder)
        port, cores = free_port(), os.cpu_count() or 1
        command = [sys.executable, str(Path(__file__)), "--peer", folder, str(port)]
        section = ServeConfig(port=free_port(), cpus_per_replica=cores, max_batch_size=32, max_tokens=args.tokens)
        with (
            subprocess.Popen(command) as process,
            stage.start(Config(root=Path(folder).as_uri(), serve=section), folder) as server,
        ):
            try:
                urls = {"kit19": server.url, "generate": f"http://127.0.0.1:{port}"}
                await_peer(urls["generate"], process)
                for url in urls.values():
                    asyncio.run(measured(url, 1, 4))
                for number in range(args.rounds):
                    rounds.append({})
                    for concurrency in CONCURRENCY:
                        texts = {}
                        for side in list(urls) if number % 2 == 0 else list(urls)[::-1]:
                            figures, texts[side] = asyncio.run(measured(urls[side], concurrency, args.tokens))
                            rounds[-1][f"{side}_{concurrency}"] = figures
                        same = same and texts["kit19"] == texts["generate"]
            finally:
                process.terminate()
    found = {
        name: {key: round(statistics.median(r[name][key] for r in rounds), 2) for key in rounds[0][name]}
        for name in rounds[0]
    }
    ratios = {
        str(c): {
            key: round(statistics.median(r[f"kit19_{c}"][key] / r[f"generate_{c}"][key] for r in rounds), 3)
            for key in ("requests_per_second", "first_token_ms")
        }
        for c in CONCURRENCY
    }
    report = {
        "benchmark": "serve",
        "environment": describe(),
        "parameters": parameters,
        "tokens": args.tokens,
        "rounds": args.rounds,
        "by_side_and_concurrency": found,
        "ratio_to_generate": ratios,
        "same_texts": same,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
