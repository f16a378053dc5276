"""Milliseconds of a linear layer over few rows on a CPU: torch's `Linear`, and `kit19_ray.lm.few_rows`, in turn.

python benchmarks/few_rows.py [--threads 2] [--repeats 15]
"""

from __future__ import annotations

import argparse
import copy
import json
import time

import torch
from environment import describe

from kit19_ray.lm import few_rows

SHAPES = ((576, 576), (576, 1536), (1536, 576), (576, 49152), (768, 3072), (4096, 4096))  # in, out
ROWS = (1, 4, 8, 9, 16, 24, 32, 33, 64)


def fastest(layer: torch.nn.Module, tokens: torch.Tensor, repeats: int) -> float:
    """Milliseconds of the fastest of some passes."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        layer(tokens)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = []
    for size_in, size_out in SHAPES:
        plain = torch.nn.Linear(size_in, size_out, bias=False)
        ours = copy.deepcopy(plain)
        few_rows.use(ours)
        for rows in ROWS:
            tokens = torch.randn(rows, size_in)
            before, after = fastest(plain, tokens, args.repeats), fastest(ours, tokens, args.repeats)
            found = {"in": size_in, "out": size_out, "rows": rows, "linear_ms": before, "few_rows_ms": after}
            results.append(found | {"ratio": round(before / after, 2)})
    print(json.dumps({"benchmark": "few_rows", "environment": describe(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
