"""Output tokens per second of a real model: this server, `transformers serve` with and without its continuous batching,
and vLLM where an environment of it is given. Ends within about eight minutes.

    python benchmarks/serve_real.py FOLDER [--sides kit19,transformers,transformers-cb,vllm] [--seconds 20]

FOLDER holds a chat model as safetensors, such as SmolLM2-135M-Instruct (docs/benchmarks.md says how to get it without a
hub). KIT19_VLLM_PYTHON names the interpreter of the vLLM environment; without it that side is left out. One server
runs at a time, a process of its own, in float32. For each:

    1, 16        clients that ask again as soon as they are answered, for --seconds; events with text are counted, of
                 which each holds about one token on every side
    short        seconds to the last token of a 16-token answer, alone, and beside fifteen of 256 tokens
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
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from environment import describe

SIDES = ("kit19", "transformers", "transformers-cb", "vllm")
PROMPTS = [
    "Tell me a long story about a river.",
    "Explain how bread is made, step by step.",
    "Write about the sea in winter.",
    "Describe a walk through a forest in detail.",
]
START_SECONDS, GIVE_UP_SECONDS = 180.0, 75.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(side: str, folder: str, port: int, root: str) -> tuple[list[str], dict[str, str]]:
    """How a side is started, and what of the environment is different for it."""
    cores = str(os.cpu_count() or 1)
    if side == "kit19":
        words = [f"serve.model={folder}", f"serve.port={port}", f"root={Path(root).as_uri()}", "serve.max_tokens=512"]
        return [sys.executable, "-m", "kit19_ray", "serve", *words, f"serve.cpus_per_replica={cores}"], {}
    if side == "vllm":
        words = [
            "serve",
            folder,
            "--port",
            str(port),
            "--enforce-eager",
            "--dtype",
            "float32",
            "--max-model-len",
            "1024",
        ]
        env = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "PYTHONPATH": ""}
        return [str(Path(os.environ["KIT19_VLLM_PYTHON"]).parent / "vllm"), *words], env
    batching = "--continuous-batching" if side == "transformers-cb" else "--no-continuous-batching"
    words = ["serve", folder, "--port", str(port), "--device", "cpu", "--dtype", "float32", batching]
    Path(root, "hub").mkdir(exist_ok=True)  # it lists its cache of models, and fails where there is none
    return [str(Path(sys.executable).parent / "transformers"), *words], {"HF_HOME": root}


async def tokens_of(client: httpx.AsyncClient, body: dict[str, Any], counted: list[float]) -> None:
    """Notes the time of each piece of one answer's text."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError((await response.aread()).decode()[:300])
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:]).get("choices") or []
                if choices and (choices[0].get("delta") or {}).get("content"):
                    counted.append(time.perf_counter())


async def rate(client: httpx.AsyncClient, model: str, clients: int, seconds: float) -> dict[str, float]:
    """Tokens per second of `clients` that ask without a pause; median milliseconds to the first token."""
    counted: list[float] = []
    firsts: list[float] = []

    async def ask(number: int) -> None:
        while True:
            mine: list[float] = []
            start = time.perf_counter()
            try:
                await tokens_of(client, body_of(model, number, 64), mine)
            finally:
                counted.extend(mine)
                if mine:
                    firsts.append(1000 * (mine[0] - start))

    begun = time.perf_counter()
    tasks = [asyncio.create_task(ask(number)) for number in range(clients)]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    took = time.perf_counter() - begun
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    first = statistics.median(firsts) if firsts else float("nan")
    return {"tokens_per_second": round(len(counted) / took, 2), "first_token_ms": round(first)}


async def short_answer(client: httpx.AsyncClient, model: str, beside: int) -> float | None:
    """Seconds to the last token of a 16-token answer beside others of 256 tokens; None where it took too long."""
    others = [asyncio.create_task(tokens_of(client, body_of(model, n, 256), [])) for n in range(beside)]
    await asyncio.sleep(3 if beside else 0)
    start = time.perf_counter()
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await tokens_of(client, body_of(model, 2, 16), [])
        return round(time.perf_counter() - start, 2)
    except TimeoutError:
        return None
    finally:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def body_of(model: str, number: int, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True}


async def measured(url: str, model: str, seconds: float) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False) as client:
        await tokens_of(client, body_of(model, 0, 4), [])  # warm
        found: dict[str, Any] = {"1": await rate(client, model, 1, seconds)}
        found["short_alone_s"] = await short_answer(client, model, 0)
        found["16"] = await rate(client, model, 16, seconds * 1.5)
        await asyncio.sleep(2)
        found["short_beside_15_s"] = await short_answer(client, model, 15)
        return found


def await_server(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < limit:
        try:
            if httpx.get(f"{url}/v1/models", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"it did not start: {log.read_text(errors='replace')[-1500:]}")


def run(side: str, folder: str, seconds: float) -> dict[str, Any]:
    """One side's figures, or why there are none."""
    port = free_port()
    with tempfile.TemporaryDirectory() as root:
        words, env = command(side, folder, port, root)
        log = Path(root, "log")
        with (
            log.open("wb") as out,
            subprocess.Popen(
                words, stdout=out, stderr=out, env={**os.environ, "HF_HUB_OFFLINE": "1", **env}, start_new_session=True
            ) as process,
        ):
            try:
                await_server(f"http://127.0.0.1:{port}", process, log)
                model = "kit19" if side == "kit19" else folder
                return asyncio.run(measured(f"http://127.0.0.1:{port}", model, seconds))
            except Exception as error:  # noqa: BLE001 - the other sides are still measured
                return {"error": f"{type(error).__name__}: {error}"[:1500]}
            finally:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a chat model as safetensors")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--seconds", type=float, default=20, help="of the measurement at one client")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for side in args.sides.split(","):
        if side == "vllm" and not os.environ.get("KIT19_VLLM_PYTHON"):
            found[side] = {"error": "KIT19_VLLM_PYTHON is not set"}
            continue
        found[side] = run(side, str(Path(args.folder).resolve()), args.seconds)
        print(f"{side}: {json.dumps(found[side])}", file=sys.stderr)
    mine = found.get("kit19", {})
    ratios = {
        side: {
            clients: round(mine[clients]["tokens_per_second"] / other[clients]["tokens_per_second"], 2)
            for clients in ("1", "16")
            if other.get(clients, {}).get("tokens_per_second") and clients in mine
        }
        for side, other in found.items()
        if side != "kit19"
    }
    report = {"benchmark": "serve_real", "environment": describe(), "sides": found, "kit19_times_the_others": ratios}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
