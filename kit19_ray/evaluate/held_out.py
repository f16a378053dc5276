"""The data stage's own validation rows, task by task: choices by likelihood, free answers by decoding.

A row of choices holds the answer as each label would have it. The model's choice is the one it finds likeliest as a
whole, end of text included, which is what was learned; no answer is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kit19_ray.config.schema import EvaluateConfig
from kit19_ray.evaluate import metrics
from kit19_ray.evaluate.actors import Pool
from kit19_ray.io import storage
from kit19_ray.lm.prompts import PromptFields, PromptFormat, fit_prompt, prompt_format

Row = dict[str, Any]
Encode = Callable[[list[str]], list[list[int]]]
_COLUMNS = ["id", "task", "kind", "instruction", "input", "output", "label", "candidates", "order"]


@dataclass(frozen=True)
class Example:
    """A validation row as the model sees it."""

    id: str
    task: str
    kind: str
    """closed: its prompt lists the choices; open: it does not."""
    prompt: list[int]
    candidates: list[list[int]]
    """Tokens of each possible answer, end of text included; empty for a free answer."""
    gold: int
    output: str


@dataclass(frozen=True)
class Reader:
    """Turns rows into tokens as the data stage does: prompt and answer apart, a long input cut at its end."""

    encode: Encode
    prompt: PromptFormat
    eos_id: int
    room: int
    """Tokens of prompt and answer together."""

    def examples(self, rows: Sequence[Row], answer_tokens: int) -> Iterator[Example]:
        """The rows that fit. One whose instruction and answer alone are too long is left out, as from training.

        Args:
            answer_tokens: room for a free answer.
        """
        prompts = self.encode([self.prompt.render(row["instruction"], row["input"]) for row in rows])
        answers = iter(self.encode([text for row in rows for text in row["candidates"]]))
        for row, prompt in zip(rows, prompts, strict=True):
            candidates = [[*next(answers), self.eos_id] for _ in row["candidates"]]
            room = self.room - (max(map(len, candidates)) if candidates else answer_tokens)
            fields: PromptFields = {"instruction": row["instruction"], "input": row["input"]}
            ids = fit_prompt(self._ids, self.prompt, fields, room, prompt)
            if ids:
                yield Example(row["id"], row["task"], row["kind"], ids, candidates, row["label"], row["output"])

    def _ids(self, text: str) -> list[int]:
        (ids,) = self.encode([text])
        return ids


def score(
    pool: Pool, tokenizer: Any, max_length: int, data_uri: str, built: dict[str, Any], config: EvaluateConfig
) -> dict[str, Row]:
    """Scores by task.

    Args:
        max_length: tokens the model can read.
        built: the data prefix's manifest.

    Returns:
        Per task: for choices `accuracy`, `macro_f1`, `majority`, `above_majority`, `n`, `labels`, `stderr`, `by_kind`
        and `correct`, 0 or 1 by row id;
        for free answers, under `generation`, `exact_match`, `chrf`, `n`, `max_tokens`, `stderr`; both where a task
        has both.
    """
    wrapper = prompt_format(built["prompt"])

    def encode(texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return found

    reader = Reader(encode, wrapper, int(tokenizer.eos_token_id), min(max_length, built["seq_len"]))
    answer_tokens = min(config.max_tokens, reader.room // 2)
    choices: list[Example] = []
    free: list[Example] = []
    for rows in read(data_uri):
        choices += reader.examples([row for row in rows if row["candidates"]], answer_tokens)
        written = [row for row in rows if not row["candidates"]][: config.generation_limit]
        free += reader.examples(written, answer_tokens)
    chosen = choose(choices, pool)
    options = {"max_tokens": answer_tokens, "stop": list(wrapper.stop)}
    said = pool.generate([e.prompt for e in free], options, "held-out answers") if free else []
    out: dict[str, Row] = {}
    for task in sorted({example.task for example in [*choices, *free]}):
        mine = [(e, p) for e, p in zip(choices, chosen, strict=True) if e.task == task]
        answers = [(e.output, completion.text) for e, completion in zip(free, said, strict=True) if e.task == task]
        out[task] = summarize([(e.kind, e.gold, p) for e, p in mine]) if mine else {}
        if mine:
            out[task]["correct"] = {e.id: int(e.gold == p) for e, p in mine}
        if answers:
            out[task]["generation"] = compare(answers) | {"max_tokens": answer_tokens}
    return out


def read(data_uri: str) -> Iterator[list[Row]]:
    """The validation rows of each task, in the data stage's own order, which is that of a hash."""
    import pyarrow.parquet as pq

    base = storage.join(data_uri, "examples")
    for info in storage.list_files(base):
        if info.path.startswith("validation-") and info.path.endswith(".parquet"):
            with storage.open_input(storage.join(base, info.path)) as file:
                rows: list[Row] = pq.read_table(file, columns=_COLUMNS).to_pylist()
            yield sorted(rows, key=lambda row: (row["order"], row["id"]))


def choose(examples: Sequence[Example], pool: Pool) -> list[int]:
    """The index of each example's likeliest candidate, the first one on a tie."""
    requests = [(example.prompt, candidate) for example in examples for candidate in example.candidates]
    found = iter(pool.loglikelihoods(requests, "held-out choices") if requests else [])
    chosen = []
    for example in examples:
        likelihoods = [next(found)[0] for _ in example.candidates]
        chosen.append(likelihoods.index(max(likelihoods)))
    return chosen


def summarize(outcomes: Sequence[tuple[str, int, int]]) -> Row:
    """Scores of (kind, gold, predicted) triples.

    `majority` is what the most frequent label of these very rows would reach, always answered; `above_majority` is the
    distance to it in standard errors, of the accuracy or of the constant answer, whichever is larger.
    """
    pairs = [(gold, predicted) for _, gold, predicted in outcomes]
    share, constant = metrics.accuracy(pairs), metrics.majority([gold for gold, _ in pairs])
    error = metrics.proportion_stderr(share, len(pairs))
    largest = max(error, metrics.proportion_stderr(constant, len(pairs)))
    kinds = {kind: [(g, p) for k, g, p in outcomes if k == kind] for kind in ("closed", "open")}
    return {
        "accuracy": share,
        "macro_f1": metrics.macro_f1(pairs),
        "majority": constant,
        "above_majority": (share - constant) / largest if largest else 0.0,
        "n": len(pairs),
        "labels": len({gold for gold, _ in pairs}),
        "stderr": {"accuracy": error, "macro_f1": metrics.macro_f1_stderr(pairs)},
        "by_kind": {kind: _kind(found) for kind, found in kinds.items() if found},
    }


def _kind(pairs: list[tuple[int, int]]) -> Row:
    share = metrics.accuracy(pairs)
    return {
        "accuracy": share,
        "macro_f1": metrics.macro_f1(pairs),
        "majority": metrics.majority([gold for gold, _ in pairs]),
        "n": len(pairs),
        "stderr": {"accuracy": metrics.proportion_stderr(share, len(pairs))},
    }


def compare(answers: Sequence[tuple[str, str]]) -> Row:
    """Scores of (reference, answer) pairs: exact match after stripping, chrF (0 to 100) as the mean over answers."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF()
    exact = sum(reference.strip() == answer.strip() for reference, answer in answers) / len(answers)
    chrf = [float(scorer.sentence_score(answer.strip(), [reference.strip()]).score) for reference, answer in answers]
    return {
        "exact_match": exact,
        "chrf": sum(chrf) / len(chrf),
        "n": len(answers),
        "stderr": {
            "exact_match": metrics.proportion_stderr(exact, len(answers)),
            "chrf": metrics.mean_stderr(chrf),
        },
    }
