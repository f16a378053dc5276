"""Requests per second of KoBEST 0-shot: our model class on Ray actors beside lm-evaluation-harness's own `hf` model.

    python benchmarks/evaluate.py [--sources ../shared/sources] [--limit 200] [--rounds 3]

One fresh GPT-NeoX of 8.8 M parameters, float32, on all cores: ours as one actor a core, `hf` as a process with a thread
a core, at the batch size that suits it best of those tried; and ours as a single actor on one core, for what a second
one adds. The same documents, tokenizer and task definitions. All take turns within one run, so that a busy machine
slows all, and the ratios are medians over the rounds. Building the prompts is left out on all sides, cutting them into
tokens is not. The log-likelihoods are compared as well.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from environment import describe

CORES = len(os.sched_getaffinity(0))
BATCH_SIZES = (16, 64)  # of the hf model
SIZES = {"hidden_size": 256, "layers": 6, "heads": 8, "intermediate_size": None, "seq_len": 1024}


def build(folder: Path, texts: list[str]) -> int:
    """Saves the model with its tokenizer; its number of parameters."""
    import torch

    from kit19_ray.data.tokenizer import train_bpe
    from kit19_ray.lm import pretrained

    tokenizer = train_bpe(texts, 8192, SIZES["seq_len"])
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = pretrained.build_gpt_neox(vocab_size=len(tokenizer), seed=19, **ids, **SIZES)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)  # so that choices differ clearly, as a trained model's do
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def timed(lm: Any, requests: list[Any]) -> tuple[float, list[tuple[float, bool]]]:
    """Seconds, and what came out."""
    start = time.perf_counter()
    found = lm.loglikelihood(requests, disable_tqdm=True)
    return time.perf_counter() - start, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", default="samples", help="folder of the original files; default: the samples")
    parser.add_argument("--limit", type=int, default=200, help="documents a task; 0 means all")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    from kit19_ray.config import loading
    from kit19_ray.lm import pretrained
    from kit19_ray.utils import ray_session

    ray_session.environment()
    from lm_eval.models.huggingface import HFLM
    from transformers.utils.logging import disable_progress_bar

    from kit19_ray.evaluate import documents, harness
    from kit19_ray.evaluate.actors import ScorerPool
    from kit19_ray.evaluate.ray_lm import RayLM
    from kit19_ray.lm.loaded_model import context_length

    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name, ray_session.connected(cpus=CORES + 1):
        config = loading.load(None, [f"root={name}", f"data.sources={args.sources}"])
        tasks = harness.names(config)
        loaded = harness.load(config, tasks).tasks
        files = [documents.documents(config, task).files for task in tasks]
        texts = [line for found in files for line in Path(found["train"]).read_text(encoding="utf-8").splitlines()]
        parameters = build(Path(name), texts)
        requests = []
        with harness.quiet():
            for task in loaded.values():
                task.build_all_requests(limit=args.limit or None, rank=0, world_size=1)
                requests += task.instances
        tokenizer = pretrained.load_tokenizer(name)
        length = context_length(pretrained.load_config(name), tokenizer)
        pools = {}
        for actors in (1, CORES):
            section = config.evaluate.model_copy(update={"workers": actors, "cpus_per_worker": 1})
            pools[actors] = ScorerPool(name, section)
        ours = {actors: RayLM(pool, tokenizer, length) for actors, pool in pools.items()}
        theirs = {size: HFLM(pretrained=name, device="cpu", batch_size=size) for size in BATCH_SIZES}
        sides: list[tuple[str, Any]] = [(f"kit19_{actors}", lm) for actors, lm in ours.items()]
        sides += [(f"hf_{size}", lm) for size, lm in theirs.items()]
        for _, lm in sides:
            timed(lm, requests[:64])
        rounds: list[dict[str, float]] = []
        for number in range(args.rounds):
            results = {}
            rounds.append({})
            for side, lm in sides if number % 2 == 0 else sides[::-1]:
                seconds, results[side] = timed(lm, requests)
                rounds[-1][side] = len(requests) / seconds
        for pool in pools.values():
            pool.close()
    us = f"kit19_{CORES}"
    difference = max(abs(a - b) for (a, _), (b, _) in zip(results[us], results["hf_16"]))
    per_second = {side: round(statistics.median(r[side] for r in rounds), 1) for side in rounds[0]}
    best = max((side for side in per_second if side.startswith("hf")), key=lambda side: per_second[side])
    print(
        json.dumps(
            {
                "benchmark": "evaluate",
                "environment": describe(),
                "parameters": parameters,
                "requests": len(requests),
                "cores": CORES,
                "requests_per_second": per_second,
                "rounds": [{side: round(rate, 1) for side, rate in r.items()} for r in rounds],
                "peer": best,
                "ratio_to_hf": round(statistics.median(r[us] / r[best] for r in rounds), 3),
                f"ratio_of_{CORES}_actors_to_1": round(statistics.median(r[us] / r["kit19_1"] for r in rounds), 3),
                "largest_difference_of_a_loglikelihood": difference,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
