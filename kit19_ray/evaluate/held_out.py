"""The data stage's own validation rows, task by task: choices by likelihood, free answers by decoding.

A row of choices holds the answer as each label would have it. The model's choice is the one it finds likeliest as a
whole, end of text included, which is what was learned. A backend without likelihoods is asked in words instead. What
was said becomes samples; `held_out_scores` makes figures of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, cast

from kit19_ray.artifacts.sample_file import ScoredSample
from kit19_ray.artifacts.schemas import TEXT
from kit19_ray.config.schema import EvaluateConfig
from kit19_ray.evaluate import answers
from kit19_ray.evaluate.actors import Backend, GenerateOptions
from kit19_ray.io import storage
from kit19_ray.lm.prompts import Prompt, PromptFields, fit_prompt, shown

_SPARE = 16  # tokens a free answer may be longer than the task's longest reference
_COLUMNS = ["id", "task", "template", "kind", "instruction", "input", "output", "label", "candidates", "order"]
_ANSWER = ["answer", "answer_type"]  # columns that prefixes of earlier versions lack


class HeldOutRow(TypedDict):
    """A validation row; see `schemas.EXAMPLE_SCHEMA`."""

    id: str
    task: str
    template: str
    kind: str
    instruction: str
    input: str
    output: str
    label: int
    candidates: list[str]
    order: int
    answer: str | None
    answer_type: str | None


@dataclass(frozen=True)
class Example:
    """A validation row as the model sees it."""

    row: HeldOutRow
    prompt: list[int]
    text: str
    """The prompt as text, its input cut where it was too long."""
    candidates: list[list[int]]
    """Tokens of each possible answer, end of text included; empty for a free answer."""


@dataclass(frozen=True)
class Reader:
    """Turns rows into tokens as the data stage does: prompt and answer apart, a long input cut at its end."""

    encode: Callable[[list[str]], list[list[int]]]
    decode: Callable[[list[int]], str]
    prompt: Prompt
    eos_id: int | None
    room: int
    """Tokens of prompt and answer together."""

    def examples(self, rows: Sequence[HeldOutRow], answer_tokens: int) -> Iterator[Example]:
        """The rows that fit. One whose instruction and answer alone are too long is left out, as from training.

        Args:
            answer_tokens: room for a free answer.
        """
        texts = [self.prompt.render(row["instruction"], row["input"]) for row in rows]
        whole = self.encode(texts)
        # A chat template has its own end of an answer; else it is the tokenizer's end-of-text token, where it has one.
        closing = [] if self.prompt.end or self.eos_id is None else [self.eos_id]
        endings = iter(self.encode([self.prompt.answer(text) for row in rows for text in row["candidates"]]))
        for row, text, ids in zip(rows, texts, whole, strict=True):
            candidates = [[*next(endings), *closing] for _ in row["candidates"]]
            room = self.room - (max(map(len, candidates)) if candidates else answer_tokens)
            fields: PromptFields = {"instruction": row["instruction"], "input": row["input"]}
            fitted = fit_prompt(lambda text: self.encode([text])[0], self.prompt, fields, room, ids)
            if fitted:
                yield Example(
                    row, fitted, shown(self.prompt, text) if fitted == ids else self.decode(fitted), candidates
                )


def tasks(data_uri: str) -> list[str]:
    """The tasks that have validation rows, sorted."""
    return sorted(_files(data_uri))


def unseen_templates(data_uri: str, task: str) -> frozenset[str]:
    """Templates of a task's validation rows that no training row has; none where there are no training rows at all."""
    import pyarrow.parquet as pq

    found: list[set[str]] = []
    for split in ("validation", "train"):
        names: set[str] = set()
        for uri in _files(data_uri, split).get(task, []):
            with storage.open_input(uri) as file:
                names |= set(pq.read_table(file, columns=["template"])["template"].unique().to_pylist())
        found.append(names)
    return frozenset(found[0] - found[1]) if found[1] else frozenset()


def _files(data_uri: str, split: str = "validation") -> dict[str, list[str]]:
    base = storage.join(data_uri, "examples")
    found: dict[str, list[str]] = {}
    for info in storage.list_files(base):
        if info.path.startswith(f"{split}-") and info.path.endswith(".parquet"):
            name = info.path.removeprefix(f"{split}-").removesuffix(".parquet").partition("/")[0]
            found.setdefault(name, []).append(storage.join(base, info.path))
    return found


def read(data_uri: str, task: str) -> list[HeldOutRow]:
    """The validation rows of a task, in the data stage's own order, which is that of a hash."""
    import pyarrow.parquet as pq

    rows: list[HeldOutRow] = []
    for uri in _files(data_uri)[task]:
        with storage.open_input(uri) as file:
            there = set(pq.ParquetFile(file).schema_arrow.names)
            found = pq.read_table(file, columns=[*_COLUMNS, *(name for name in _ANSWER if name in there)]).to_pylist()
        # A plain text asks nothing.
        rows += [cast(HeldOutRow, {"answer": None, "answer_type": None, **row}) for row in found if row["kind"] != TEXT]
    return sorted(rows, key=lambda row: (row["order"], row["id"]))


def ask(
    rows: Sequence[HeldOutRow],
    reader: Reader,
    backend: Backend,
    config: EvaluateConfig,
    unseen: frozenset[str] = frozenset(),
) -> list[ScoredSample]:
    """Asks the rows of one task.

    Args:
        unseen: templates that no training row has.

    Returns:
        Choices first, then the free answers, the first `generation_limit` of them.
    """
    choices = [row for row in rows if row["candidates"]]
    free = [row for row in rows if not row["candidates"]][: config.generation_limit]
    found = _choose(choices, reader, backend) if backend.can_score else _choose_in_words(choices, reader, backend)
    found += _write(free, reader, backend, config.max_tokens)
    for sample in found:
        sample["unseen_template"] = sample["template"] in unseen
    return found


def _choose(rows: Sequence[HeldOutRow], reader: Reader, backend: Backend) -> list[ScoredSample]:
    """The likeliest candidate of each row, the first one on a tie."""
    examples = list(reader.examples(rows, 0))
    if not examples:
        return []
    requests = [(example.prompt, candidate) for example in examples for candidate in example.candidates]
    found = iter(backend.loglikelihoods(requests, f"held-out choices of {rows[0]['task']}"))
    samples = []
    for example in examples:
        values = [next(found) for _ in example.candidates]
        sums = [value for value, _ in values]
        sample = _sample(example)
        sample["choices"] = example.row["candidates"]
        sample["loglikelihoods"] = sums
        sample["greedy"] = [greedy for _, greedy in values]
        sample["gold"] = example.row["label"]
        sample["answer"] = sums.index(max(sums))
        per_letter = [value / max(1, len(text)) for value, text in zip(sums, example.row["candidates"], strict=True)]
        sample["metrics"] = {
            "accuracy": float(sample["answer"] == sample["gold"]),
            "accuracy_norm": float(per_letter.index(max(per_letter)) == sample["gold"]),
            "predicted_norm": per_letter.index(max(per_letter)),
            "expected": sum(n * math.exp(value - max(sums)) for n, value in enumerate(sums))
            / sum(math.exp(value - max(sums)) for value in sums),
        }
        samples.append(sample)
    return samples


def _choose_in_words(rows: Sequence[HeldOutRow], reader: Reader, backend: Backend) -> list[ScoredSample]:
    """The choice that the model writes; a row whose answer names none counts as wrong."""
    words = _words(rows)
    tokens = max((len(ids) for ids in reader.encode([c for row in rows for c in row["candidates"]])), default=0)
    samples = []
    for sample, row in _decoded(rows, reader, backend, tokens + _SPARE):
        names = [words.get((row["template"], n), text) for n, text in enumerate(row["candidates"])]
        exact = answers.pick_choice(sample["said"], row["candidates"])
        picked = exact if exact is not None else answers.pick_choice(sample["said"], names)
        sample["choices"], sample["gold"], sample["answer"] = names, row["label"], picked
        sample["metrics"] = {"accuracy": float(picked == row["label"])}
        samples.append(sample)
    return samples


def _words(rows: Sequence[HeldOutRow]) -> dict[tuple[str, int], str]:
    """The bare word of each label under each template, from the rows whose answer it is; none for words of one row."""
    found: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        if row["answer"]:
            found.setdefault((row["template"], row["label"]), set()).add(row["answer"])
    return {key: next(iter(words)) for key, words in found.items() if len(words) == 1}


def _write(rows: Sequence[HeldOutRow], reader: Reader, backend: Backend, max_tokens: int) -> list[ScoredSample]:
    """Free answers, of at most the length of the task's longest reference."""
    references = reader.encode([row["output"] for row in rows])
    tokens = min(max_tokens, max(map(len, references), default=0) + _SPARE)
    names = {name for row in rows if row["answer_type"] == "set" for name in (row["answer"] or "").split(",")}
    samples = []
    for sample, row in _decoded(rows, reader, backend, tokens):
        known = row["answer"] is not None
        sample["gold"] = row["answer"] if known else row["output"]
        sample["answer"] = sample["said"].strip()
        sample["answer_type"] = row["answer_type"] or "text"
        sample["metrics"] = answers.compare(
            sample["said"], str(sample["gold"]), sample["answer_type"], sample["finish_reason"] == "stop", names
        )
        samples.append(sample)
    return samples


def _decoded(
    rows: Sequence[HeldOutRow], reader: Reader, backend: Backend, max_tokens: int
) -> Iterator[tuple[ScoredSample, HeldOutRow]]:
    """Each row that fits, with what the model writes to it, greedily."""
    tokens = max(1, min(max_tokens, reader.room // 2))
    bare: list[HeldOutRow] = [{**row, "candidates": []} for row in rows]
    whole = {row["id"]: row for row in rows}
    examples = list(reader.examples(bare, tokens))
    if not examples:
        return
    options: GenerateOptions = {"max_tokens": tokens, "stop": list(reader.prompt.stop)}
    said = backend.generate([example.prompt for example in examples], options, f"held-out answers of {rows[0]['task']}")
    for example, completion in zip(examples, said, strict=True):
        sample = _sample(example)
        sample["said"], sample["finish_reason"] = completion.text, completion.finish_reason
        yield sample, whole[example.row["id"]]


def _sample(example: Example) -> ScoredSample:
    row = example.row
    return {
        "section": "held_out",
        "task": row["task"],
        "doc_id": row["id"],
        "template": row["template"],
        "kind": row["kind"],
        "prompt": example.text,
        "prompt_hash": hashlib.sha256(example.text.encode()).hexdigest(),
    }
