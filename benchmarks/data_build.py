"""Rows per second from raw files to packed shards: this stage, `datasets` with the same steps, and the tokenizer alone.

    python benchmarks/data_build.py [--rows 100000] [--cpus 2]

All three run in this process's environment on the same synthetic files; each gets a fresh interpreter and its start-up
is left out. `datasets` does the same work with the same functions: read, sample, render, tokenize and pack, with
num_proc = cpus. The limit is the raw tokenizer's `encode_batch` over the same prompts and answers, on all CPUs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# fmt: off
WORDS = [
    "영화", "배우", "연기", "음악", "장면", "이야기", "결말", "감독", "화면", "대사",
    "정말", "조금", "너무", "그냥", "다시", "매우", "재미있다", "지루하다", "훌륭하다", "아쉽다",
]
# fmt: on


def synthesize(folder: Path, rows: int) -> None:
    """`rows` rows in all of three original formats: nsmc, korsts, kornli."""
    rng = random.Random(19)

    def sentence(low: int = 6, high: int = 18) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    def write(path: str, header: str, lines: list[str]) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")

    part = rows // 3
    write("nsmc/ratings_train.txt", "id\tdocument\tlabel", [f"{i}\t{sentence()} {i}\t{i % 2}" for i in range(part)])
    labels = ("entailment", "neutral", "contradiction")
    for name, n in (("multinli.train.ko.tsv", part // 2), ("snli_1.0_train.ko.tsv", part - part // 2)):
        write(
            f"kornli/{name}",
            "sentence1\tsentence2\tgold_label",
            [f"{sentence()} {i}\t{sentence()}\t{labels[i % 3]}" for i in range(n)],
        )
    write(
        "korsts/sts-train.tsv",
        "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2",
        [f"g\tf\t2012\t{i:05d}\t{i % 6}.000\t{sentence()} {i}\t{sentence()}" for i in range(rows - 2 * part)],
    )


def _config(folder: Path, rows: int, cpus: int) -> Any:
    from kit19_ray import settings

    words = [
        f"root={folder}/root", f"data.sources={folder}", "data.verify=false", "data.tasks=[nsmc,kornli,korsts]",
        f"data.quota={rows // 6}", "data.validation=250", "data.prompt=koalpaca", "data.seq_len=512",
        f"data.tokenizer.name={folder}/tokenizer", f"data.cpus={cpus}",
    ]  # fmt: skip
    return settings.load(None, words)


def train_tokenizer(folder: Path) -> None:
    """The same published tokenizer for every side."""
    from kit19_ray.data import tokenizer

    rng = random.Random(7)
    texts = [" ".join(rng.choices(WORDS, k=12)) for _ in range(5000)]
    (folder / "tokenizer").mkdir()
    tokenizer.save(tokenizer.train_bpe(texts, 4000, 512), folder / "tokenizer")


def run_kit19(folder: Path, rows: int, cpus: int) -> dict[str, float]:
    """Seconds of `data.stage.run` on a Ray cluster that is already up."""
    from kit19_ray import manifest, runtime
    from kit19_ray.data import stage

    config = _config(folder, rows, cpus)
    with runtime.connected(cpus):
        import ray

        ray.get([ray.remote(lambda: __import__("kit19_ray.data.build")).remote() for _ in range(cpus)])
        start = time.perf_counter()
        uri = stage.run(config)
        seconds = time.perf_counter() - start
    built = manifest.require(uri, "data")
    return {"seconds": seconds, "examples": sum(s["examples"] for s in built["splits"].values())}


def run_datasets(folder: Path, rows: int, cpus: int) -> dict[str, float]:
    """The same steps with `datasets`: the same readers, sampling by the same hash, rendering, encoding, packing."""
    import datasets
    import numpy as np
    from transformers import AutoTokenizer

    from kit19_ray import shards, storage
    from kit19_ray.data import examples as ex
    from kit19_ray.data.hashing import fraction, hash64
    from kit19_ray.data.inputs import collect
    from kit19_ray.data.packing import TokenRow, pack
    from kit19_ray.data.records import Record, to_record
    from kit19_ray.data.tokens import Encoder
    from kit19_ray.prompt import prompt_format
    from kit19_ray.sources import readers
    from kit19_ray.sources.formats import Raw

    datasets.disable_progress_bars()
    config = _config(folder, rows, cpus)
    start = time.perf_counter()
    inputs = collect(config)
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "tokenizer"))
    parts = []
    for name, task in inputs.tasks.items():

        def read(task: Any = task, name: str = name) -> Any:
            for file in inputs.files[name]:
                for raw in readers.read(task.source, file):
                    if isinstance(raw, Raw):
                        yield {
                            "line": raw.line,
                            "file": file.path,
                            "group": raw.group or "",
                            "fields": json.dumps(raw.fields),
                        }

        def keep(row: dict[str, Any], task: Any = task) -> dict[str, Any]:
            record = to_record(task, row["file"], Raw(row["line"], json.loads(row["fields"]), row["group"] or None))
            assert isinstance(record, Record)
            held_out = fraction(config.seed, "split", task.name, record.group) < config.data.validation_fraction
            return {"id": record.id, "validation": held_out, "key": hash64(config.seed, "sample", record.id) >> 1}

        def render(row: dict[str, Any], task: Any = task) -> dict[str, Any]:
            record = to_record(task, row["file"], Raw(row["line"], json.loads(row["fields"]), row["group"] or None))
            assert isinstance(record, Record)
            split = "validation" if row["validation"] else "train"
            (planned,) = ex.plan(task, [record], 1, config.seed, False)
            shown = ex.render(task, planned, split, config.seed)
            return {c: shown[c] for c in ("id", "task", "split", "instruction", "input", "output")}

        whole = datasets.Dataset.from_generator(read, cache_dir=str(folder / "hf"))
        keyed = whole.map(keep, num_proc=cpus)
        for held_out, quota in ((False, config.data.quota), (True, config.data.validation)):
            split = keyed.filter(lambda v, h=held_out: v == h, input_columns="validation", num_proc=cpus).sort("key")
            chosen = split.select(range(min(quota, len(split))))
            parts.append(chosen.map(render, remove_columns=whole.column_names + ["validation", "key"], num_proc=cpus))
    joined = datasets.concatenate_datasets(parts)

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        encoder = Encoder(
            tokenizer.backend_tokenizer, prompt_format(config.data.prompt), tokenizer.eos_token_id, config.data.seq_len
        )
        rows_ = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        encoded = [row for row, _ in encoder.encode(rows_) if row is not None]
        return {"input_ids": [r.input_ids for r in encoded], "num_prompt": [r.num_prompt for r in encoded]}

    tokens = joined.map(encode, batched=True, batch_size=1024, num_proc=cpus, remove_columns=joined.column_names)
    size = config.data.examples_per_shard

    def pack_batch(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        made = [
            TokenRow(np.asarray(i, np.int32), n) for i, n in zip(batch["input_ids"], batch["num_prompt"], strict=True)
        ]
        data = shards.to_ipc(*pack(made, config.data.seq_len, tokenizer.pad_token_id))
        storage.write_bytes(f"file://{folder}/hf-out/{indices[0]}.arrow", data)
        return {"rows": [len(made)]}

    packed = tokens.map(
        pack_batch, batched=True, batch_size=size, with_indices=True, num_proc=cpus, remove_columns=tokens.column_names
    )
    return {"seconds": time.perf_counter() - start, "examples": sum(packed["rows"])}


def run_limit(folder: Path, rows: int, cpus: int) -> dict[str, float]:
    """Seconds of the raw tokenizer's `encode_batch` over every prompt and answer the build encodes."""
    import os

    os.environ.update(TOKENIZERS_PARALLELISM="true", RAYON_NUM_THREADS=str(cpus))
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    from kit19_ray.prompt import render_prompt

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    texts: list[str] = []
    for path in sorted((folder / "root").glob("data-*/examples/*.parquet")):
        for row in pq.read_table(path, columns=["instruction", "input", "output"]).to_pylist():
            texts += [render_prompt("koalpaca", row["instruction"], row["input"]), row["output"]]
    start = time.perf_counter()
    for i in range(0, len(texts), 2048):
        tokenizer.encode_batch(texts[i : i + 2048], add_special_tokens=False)
    return {"seconds": time.perf_counter() - start, "examples": len(texts) // 2}


SIDES = {"kit19": run_kit19, "datasets": run_datasets, "tokenizer": run_limit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="raw rows over all files")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        import resource

        result = SIDES[args.side](args.folder, args.rows, args.cpus)
        peak = max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
        print(json.dumps(result | {"rss_mib": round(peak)}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesize(folder, args.rows)
        train_tokenizer(folder)
        results = {}
        for side in SIDES:
            command = [
                sys.executable,
                __file__,
                "--side",
                side,
                "--folder",
                name,
                "--rows",
                str(args.rows),
                "--cpus",
                str(args.cpus),
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results[side] = json.loads(done.stdout.strip().splitlines()[-1])
    from environment import describe

    rates = {side: args.rows / r["seconds"] for side, r in results.items()}
    report = {
        "benchmark": "data_build",
        "rows": args.rows,
        "environment": describe(),
        "results": results,
        "rows_per_second": {s: round(r) for s, r in rates.items()},
        "ratio_to_datasets": round(rates["kit19"] / rates["datasets"], 3),
        "ratio_to_tokenizer": round(rates["kit19"] / rates["tokenizer"], 3),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
