"""Rows per second from raw files to packed shards: this stage, `datasets` with the same steps, and the tokenizer alone.

    python benchmarks/data_build.py [--part a] [--rows 1000000] [--cpus 2]
    python benchmarks/data_build.py --part b [--rows 2000000]     one task, one file: 2 CPUs beside 1, largest process
    python benchmarks/data_build.py --part c [--rows 10000000]    rows/s and memory at 1 M rows and at --rows

Every side gets a fresh interpreter, its start-up left out, and as many cores as it has CPUs (`taskset`).
Part a: all run on the same synthetic files. `datasets` does the same work with the same functions and libraries: read,
gates (evaluation items, copies, contradictions), sample, near duplicates, render, tokenize and pack, with num_proc =
cpus. It knows no lexical baseline: that step's seconds stand apart. The tokenization step is then run again, in turn
with its limit: the raw tokenizer's `encode_batch_fast` over the same prompts and answers, on as many threads.
Memory is the proportional set size of the process tree, and the largest of its processes' own, sampled twice a second;
in part a for a quarter of the rows as well.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

QUOTA = 40_000  # examples per task: enough that the tokenization step is not all start-up
ROUNDS = 5  # of the tokenization step and its limit in turn; the medians count
TASKS = ("kornli", "korsts", "nsmc", "sae4k")
_RNG = random.Random(19)
WORDS = [
    "".join(
        _RNG.choices("가나다라마바사아자차카타파하고노도로모보소오조초코토포호기니디리미비시이", k=_RNG.randint(2, 4))
    )
    for _ in range(4000)
]


def _sentence(rng: random.Random, low: int = 6, high: int = 18) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def synthesize(folder: Path, rows: int) -> None:
    """`rows` rows in all of four original formats, one in a hundred a copy, and 20,000 evaluation items."""
    rng = random.Random(19)

    def write(path: str, header: str, count: int, line: Any) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("w", encoding="utf-8") as file:
            file.write(header)
            last = ""
            for i in range(count):
                last = last if last and i % 100 == 99 else line(i)
                file.write(last + "\n")

    part = rows // len(TASKS)
    nli = ("entailment", "neutral", "contradiction")
    write("nsmc/ratings_train.txt", "id\tdocument\tlabel\n", part, lambda i: f"{i}\t{_sentence(rng)}\t{i % 2}")
    write("sae4k/sae4k_v1.txt", "", part, lambda i: f"{_sentence(rng)}\t{_sentence(rng, 2, 4)}\t{i % 6}")
    for name, count in (("multinli.train.ko.tsv", part // 2), ("snli_1.0_train.ko.tsv", part - part // 2)):
        header = "sentence1\tsentence2\tgold_label\n"
        write(f"kornli/{name}", header, count, lambda i: f"{_sentence(rng)}\t{_sentence(rng)}\t{nli[i % 3]}")
    header = "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\n"
    rest = rows - 3 * part
    write(
        "korsts/sts-train.tsv", header, rest, lambda i: f"g\tf\t2012\t{i}\t{i % 6}\t{_sentence(rng)}\t{_sentence(rng)}"
    )
    write("eval/kmhas/kmhas_test.txt", "document\tlabel\n", 20_000, lambda i: f"{_sentence(rng)}\t8")


def synthesize_one(folder: Path, rows: int) -> None:
    """`rows` rows of one task in one file."""
    rng = random.Random(19)
    (folder / "nsmc").mkdir(parents=True)
    with (folder / "nsmc" / "ratings_train.txt").open("w", encoding="utf-8") as file:
        file.write("id\tdocument\tlabel\n")
        for i in range(rows):
            file.write(f"{i}\t{_sentence(rng)}\t{i % 2}\n")


class Peaks:
    """MiB: the most that the process tree had, and that one process of it had."""

    def __init__(self) -> None:
        self.tree = self.process = 0.0

    def figures(self) -> dict[str, float]:
        """For a report."""
        return {"peak_mib": self.tree, "peak_process_mib": self.process}


@contextmanager
def peak_memory() -> Iterator[Peaks]:
    """Proportional set sizes of the process tree during the block."""
    peaks = Peaks()
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.5):
            found = []
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    found.append(process.memory_full_info().pss / 2**20)
                except psutil.Error:
                    continue  # it ended meanwhile
            peaks.tree, peaks.process = max(peaks.tree, sum(found)), max(peaks.process, *found)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def _config(folder: Path, cpus: int, tasks: tuple[str, ...] = TASKS) -> Any:
    from kit19_ray.config import loading

    words = [
        f"root={folder}/root", f"data.sources={folder}", "data.verify=false", f"data.tasks=[{','.join(tasks)}]",
        f"data.quota={QUOTA}", "data.validation=250", "data.prompt=koalpaca", "data.seq_len=512",
        f"data.tokenizer.name={folder}/tokenizer", f"data.cpus={cpus}",
    ]  # fmt: skip
    return loading.load(None, words)


def train_tokenizer(folder: Path) -> None:
    """The same published tokenizer for every side."""
    from kit19_ray.data import tokenizer

    rng = random.Random(7)
    texts = [" ".join(rng.choices(WORDS, k=12)) for _ in range(5000)]
    (folder / "tokenizer").mkdir()
    tokenizer.save(tokenizer.train_bpe(texts, 4000, 512), folder / "tokenizer")


def run_kit19(folder: Path, cpus: int) -> dict[str, float]:
    """Seconds of `data.stage.run` on a Ray cluster that is up; and its tokenization step beside the tokenizer alone."""
    from kit19_ray.artifacts import manifest
    from kit19_ray.data import stage
    from kit19_ray.data.inputs import collect
    from kit19_ray.data.pipeline import Build
    from kit19_ray.data.steps import lexical
    from kit19_ray.io import storage
    from kit19_ray.utils import ray_session

    config = _config(folder, cpus)
    baseline, baseline_seconds = lexical.make, []

    def timed(*given: Any) -> Any:
        start = time.perf_counter()
        made = baseline(*given)
        baseline_seconds.append(time.perf_counter() - start)
        return made

    lexical.make = timed
    with ray_session.connected(cpus):
        import ray

        ray.get([ray.remote(lambda: __import__("kit19_ray.data.stage")).remote() for _ in range(cpus)])
        with peak_memory() as peak:
            start = time.perf_counter()
            uri = stage.run(config)
            seconds = time.perf_counter() - start
        built = manifest.require(uri, "data")
        tasks = folder / "root" / "tasks"
        examples = {path.parent.name: storage.normalise(path) for path in tasks.glob("*/examples-*")}
        info = {key: built[key] for key in ("eos_token_id", "pad_token_id", "vocab_size")}
        step, limit = Build(config, collect(config), uri), _limit(folder, cpus)
        times: list[tuple[float, float]] = []
        for _ in range(ROUNDS):
            for old in tasks.glob("*/tokens-*"):
                shutil.rmtree(old)
            start = time.perf_counter()
            step.tokens(examples, info, f"{uri}/tokenizer")
            times.append((time.perf_counter() - start, limit()))
    return {
        "seconds": seconds - sum(baseline_seconds),
        "lexical_baseline_seconds": sum(baseline_seconds),
        "examples": sum(s["examples"] for s in built["splits"].values()),
        "tokenization_seconds": statistics.median(ours for ours, _ in times),
        "tokenizer_seconds": statistics.median(alone for _, alone in times),
        "ratio_to_tokenizer": statistics.median(alone / ours for ours, alone in times),
        **peak.figures(),
    }


def run_one(folder: Path, cpus: int) -> dict[str, float]:
    """Seconds of a build of one task, on a cluster that is up."""
    from kit19_ray.artifacts import manifest
    from kit19_ray.data import stage
    from kit19_ray.utils import ray_session

    config = _config(folder, cpus, ("nsmc",))
    with ray_session.connected(cpus):
        import ray

        ray.get([ray.remote(lambda: __import__("kit19_ray.data.stage")).remote() for _ in range(cpus)])
        with peak_memory() as peak:
            start = time.perf_counter()
            uri = stage.run(config)
            seconds = time.perf_counter() - start
    built = manifest.require(uri, "data")
    shutil.rmtree(folder / "root")  # the next number of CPUs builds it anew
    return {"seconds": seconds, "examples": sum(s["examples"] for s in built["splits"].values()), **peak.figures()}


def _limit(folder: Path, cpus: int) -> Callable[[], float]:
    """Seconds of the raw tokenizer's `encode_batch_fast` over every prompt and answer the build encodes."""
    os.environ.update(TOKENIZERS_PARALLELISM="true", RAYON_NUM_THREADS=str(cpus))  # of this process only
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    from kit19_ray.lm.prompts import prompt_format

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    texts: list[str] = []
    for path in sorted((folder / "root").glob("tasks/*/examples-*/*.parquet")):
        for row in pq.read_table(path, columns=["instruction", "input", "output"]).to_pylist():
            texts += [prompt_format("koalpaca").render(row["instruction"], row["input"]), row["output"]]

    def encode() -> float:
        start = time.perf_counter()
        for i in range(0, len(texts), 2048):
            tokenizer.encode_batch_fast(texts[i : i + 2048], add_special_tokens=False)
        return time.perf_counter() - start

    return encode


def run_datasets(folder: Path, cpus: int) -> dict[str, float]:
    """The same steps with `datasets`."""
    import datasets_peer

    with peak_memory() as peak:
        seconds, examples = datasets_peer.run(_config(folder, cpus), folder, cpus)
    return {"seconds": seconds, "examples": examples, **peak.figures()}


SIDES = {"kit19": run_kit19, "datasets": run_datasets}
ALONE = {"one": run_one}  # of the parts b and c


def _measure(side: str, folder: Path, cpus: int) -> Any:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder), "--cpus", str(cpus)]
    # As many cores as CPUs, for Ray and for threads of libraries too: one CPU is a machine that has one.
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cpus]))
    done = subprocess.run(["taskset", "--cpu-list", cores, *command], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def part_a(rows: int, cpus: int) -> dict[str, Any]:
    """Four tasks of as many files: this beside `datasets` and the raw tokenizer."""
    results: dict[str, Any] = {}
    for number, sides in ((rows // 4, ("kit19",)), (rows, tuple(SIDES))):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            synthesize(folder, number)
            train_tokenizer(folder)
            for side in sides:
                results[side if number == rows else "kit19_quarter"] = _measure(side, folder, cpus)
    ours, theirs = results["kit19"], results["datasets"]
    return {
        "results": results,
        "rows_per_second": {s: round(rows / results[s]["seconds"]) for s in SIDES},
        "ratio_to_datasets": round(theirs["seconds"] / ours["seconds"], 3),
        "ratio_to_tokenizer": round(ours["ratio_to_tokenizer"], 3),
        "peak_mib": {"quarter": round(results["kit19_quarter"]["peak_mib"]), "whole": round(ours["peak_mib"])},
    }


def part_b(rows: int, cpus: int) -> dict[str, Any]:
    """One task of one file, on 1 CPU and on more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesize_one(folder, rows)
        train_tokenizer(folder)
        results = {f"cpus_{n}": _measure("one", folder, n) for n in (1, cpus)}
    one, more = results["cpus_1"], results[f"cpus_{cpus}"]
    return {
        "results": results,
        "rows_per_second": {name: round(rows / found["seconds"]) for name, found in results.items()},
        "ratio_to_one_cpu": round(one["seconds"] / more["seconds"], 3),
        "peak_process_mib": round(max(one["peak_process_mib"], more["peak_process_mib"])),
    }


def part_c(rows: int, cpus: int) -> dict[str, Any]:
    """The same task at 1 M rows and at more: speed and memory must stay as they are."""
    results: dict[str, Any] = {}
    for number in (min(1_000_000, rows), rows):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            synthesize_one(folder, number)
            train_tokenizer(folder)
            results[f"rows_{number}"] = _measure("one", folder, cpus)
    return {
        "results": results,
        "rows_per_second": {key: round(int(key[5:]) / found["seconds"]) for key, found in results.items()},
        "peak_process_mib": {key: round(found["peak_process_mib"]) for key, found in results.items()},
    }


PARTS = {"a": (part_a, 1_000_000), "b": (part_b, 2_000_000), "c": (part_c, 10_000_000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), default="a")
    parser.add_argument("--rows", type=int, help="raw rows over all files")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--side", choices=[*SIDES, *ALONE], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps((SIDES | ALONE)[args.side](args.folder, args.cpus)))
        return
    from environment import describe

    part, usual = PARTS[args.part]
    rows = args.rows or usual
    report = {"benchmark": "data_build", "part": args.part, "rows": rows, "environment": describe()}
    print(json.dumps(report | part(rows, args.cpus), indent=1))


if __name__ == "__main__":
    main()
