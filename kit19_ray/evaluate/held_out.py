"""The data stage's own validation rows, task by task: choices by likelihood, free answers by decoding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

from kit19_ray import manifest, storage
from kit19_ray.config import EvaluateConfig
from kit19_ray.evaluate.actors import Pool
from kit19_ray.evaluate.metrics import accuracy, macro_f1, macro_f1_stderr, majority, proportion_stderr
from kit19_ray.prompt import prompt_format

Row = dict[str, Any]
_COLUMNS = ["id", "task", "kind", "instruction", "input", "output", "label", "candidates"]


def rows(data_uri: str) -> list[Row]:
    """Every validation example of a finished data prefix, in the order of its files."""
    found: list[Row] = []
    for file in storage.list_files(storage.join(data_uri, "examples")):
        if file.path.startswith("validation-"):
            with storage.open_input(storage.join(data_uri, "examples", file.path)) as source:
                found += pq.read_table(source, columns=_COLUMNS).to_pylist()
    return found


def score(pool: Pool, tokenizer: Any, max_length: int, data_uri: str, config: EvaluateConfig) -> dict[str, Row]:
    """Scores by task. A prompt that is longer than the model's context loses its beginning, as when served.

    Returns:
        Per task: for choices `accuracy`, `macro_f1`, `majority`, `n`, `labels`, `stderr` and `by_kind`; for free
        answers `exact_match`, `chrf`, `n`; both where a task has both, the latter under `generation`.
    """
    wrapper = prompt_format(manifest.require(data_uri, "data")["prompt"])
    examples = rows(data_uri)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def prompt(row: Row) -> list[int]:
        return encode(wrapper.render(row["instruction"], row["input"]))

    chosen = _choose(pool, [r for r in examples if r["label"] >= 0], prompt, encode)
    free = _free(
        pool, [r for r in examples if r["label"] < 0], prompt, list(wrapper.stop), min(config.max_tokens, max_length // 2),
        config.generation_limit,
    )  # fmt: skip
    return {
        task: {**chosen.get(task, {}), **({"generation": free[task]} if task in free else {})}
        for task in sorted({*chosen, *free})
    }


def _choose(pool: Pool, examples: list[Row], prompt: Any, encode: Any) -> dict[str, Row]:
    """Each example's candidates by the likelihood of candidate and end of text, which is what was learned."""
    requests: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for row in examples:
        context = tuple(prompt(row))
        requests += [(context, tuple(encode(candidate))) for candidate in row["candidates"]]
    scores = iter(pool.loglikelihoods(requests, "held-out choices") if requests else [])
    outcomes: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for row in examples:
        likelihoods = [next(scores)[0] for _ in row["candidates"]]
        outcomes[row["task"]].append((row["kind"], row["label"], likelihoods.index(max(likelihoods))))
    return {task: summarize(found) for task, found in outcomes.items()}


def summarize(outcomes: Sequence[tuple[str, int, int]]) -> Row:
    """Scores of (kind, gold, predicted) triples."""
    pairs = [(gold, predicted) for _, gold, predicted in outcomes]
    share, constant = accuracy(pairs), majority([gold for gold, _ in pairs])
    error = proportion_stderr(share, len(pairs))
    kinds = {kind: [(g, p) for k, g, p in outcomes if k == kind] for kind in ("closed", "open")}
    return {
        "accuracy": share,
        "macro_f1": macro_f1(pairs),
        "majority": constant,
        "n": len(pairs),
        "labels": len({gold for gold, _ in pairs}),
        "stderr": {"accuracy": error, "macro_f1": macro_f1_stderr(pairs)},
        "above_majority": (share - constant) / max(error, proportion_stderr(constant, len(pairs)), 1e-9),
        "by_kind": {k: {"accuracy": accuracy(found), "n": len(found)} for k, found in kinds.items() if found},
    }


def _free(pool: Pool, examples: list[Row], prompt: Any, stop: list[str], max_tokens: int, limit: int) -> dict[str, Row]:
    """The first `limit` examples of each task, decoded greedily."""
    import sacrebleu

    taken: dict[str, list[Row]] = defaultdict(list)
    for row in examples:
        if len(taken[row["task"]]) < limit:
            taken[row["task"]].append(row)
    flat = [row for found in taken.values() for row in found]
    if not flat:
        return {}
    options = {"max_tokens": max_tokens, "temperature": 0.0, "stop": stop}
    completions = pool.generate([prompt(row) for row in flat], options, "held-out answers")
    answers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row, completion in zip(flat, completions, strict=True):
        answers[row["task"]].append((completion.text.strip(), row["output"].strip()))
    return {
        task: {
            "exact_match": sum(said == gold for said, gold in found) / len(found),
            "chrf": sacrebleu.corpus_chrf([said for said, _ in found], [[gold for _, gold in found]]).score,
            "n": len(found),
        }
        for task, found in answers.items()
        if found
    }
