"""samples.jsonl: every question of an evaluation with what the model said, a line each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

from kit19_ray.io import storage

SAMPLES = "samples.jsonl"


class ScoredSample(TypedDict, total=False):
    """One question. Of a question with choices `choices` to `loglikelihoods` are there, of any other `said`."""

    section: str
    """tasks (the harness's), held_out (the data stage's validation rows) or judge."""
    task: str
    """Named as in scores.json."""
    num_fewshot: int
    """Solved examples in the prompt; the harness's tasks only."""
    doc_id: str
    """The harness's number of the document, or the row's id."""
    template: str
    """Held-out: the template's name. The harness's: the task's own, with its version."""
    kind: str
    """Held-out: closed, the prompt lists the choices, or open."""
    unseen_template: bool
    """Held-out: no training row was asked with this template."""
    prompt: str
    """What the model was given, as text."""
    prompt_hash: str
    """SHA-256 of `prompt`."""
    choices: list[str]
    """Continuations that were compared."""
    loglikelihoods: list[float]
    """Of each choice, a sum over its tokens."""
    greedy: list[bool]
    """Whether each choice is what greedy decoding would have written."""
    said: str
    """What the model wrote."""
    finish_reason: str
    """stop or length; held-out only."""
    answer: int | str | None
    """The choice taken, by its place, or what was made of `said`; None when it names no choice."""
    gold: int | str | list[Any] | None
    """The right choice's place, or the reference."""
    answer_type: str
    """Held-out: how `said` and `gold` are compared."""
    judgement: str
    """What the judge wrote of `said`; of a pair, both verdicts."""
    filter: str
    """The harness's filter that made `answer` of `said`."""
    metrics: dict[str, Any]
    """This question's own figures by metric; what the harness keeps for an F1 is no number."""


def line(sample: ScoredSample) -> str:
    """A sample as its line."""
    return json.dumps(sample, ensure_ascii=False) + "\n"


def read(out: str) -> Iterator[ScoredSample]:
    """The samples of an evaluate prefix, in the file's order; none where none were kept."""
    uri = storage.join(out, SAMPLES)
    if storage.exists(uri):
        yield from parse(storage.read_text(uri).splitlines())


def parse(lines: Iterable[str]) -> Iterator[ScoredSample]:
    """The samples of some lines."""
    for text in lines:
        yield json.loads(text)
