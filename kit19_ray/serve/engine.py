"""The model as the server uses it: jobs in, answers out, whoever they are batched with."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit19_ray.serve.batches import Job, together

if TYPE_CHECKING:
    from kit19_ray.lm.decoding import Completion
    from kit19_ray.lm.generator import Generator
    from kit19_ray.serve.metrics import Metrics

log = logging.getLogger("ray.serve")


@dataclass
class Answer:
    """What the model said to one job. The lists have one entry a token."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    """The completion, cut before a stop sequence."""
    finish_reason: str = "length"
    """`stop`: it ended by itself or at a stop sequence; `length`: it was cut at max_tokens."""
    logprobs: list[float] = field(default_factory=list)
    top: list[dict[int, float]] = field(default_factory=list)
    """The likeliest tokens; empty dicts when the job asks for none."""
    prompt_logprobs: list[float | None] = field(default_factory=list)
    """Of the prompt's tokens when the job asks for them, the first None; else empty."""
    prompt_top: list[dict[int, float] | None] = field(default_factory=list)


def answer(generator: Generator, jobs: Sequence[Job], metrics: Metrics) -> list[Answer | Exception]:
    """An answer for each job, or what went wrong with the batch it was in; the other batches' answers stand.

    A job whose client is gone gets an empty answer.
    """
    metrics.prompts.inc(len(jobs))
    out: list[Answer | Exception] = [Answer() for _ in jobs]
    waiting = [place for place, job in enumerate(jobs) if not job.gone.is_set()]
    scored = [place for place in waiting if jobs[place].score_prompt]
    decoded = [[waiting[n] for n in group] for group in together([jobs[place] for place in waiting])]
    for places, work in [(scored, _score), *((group, _decode) for group in decoded)]:
        if not places:
            continue
        metrics.batches.inc()
        try:
            for place, part in zip(places, work(generator, [jobs[p] for p in places], metrics), strict=True):
                so_far = out[place]
                if isinstance(so_far, Answer):
                    out[place] = _joined(so_far, part)
        except Exception as error:
            log.exception("a batch of %d prompts failed", len(places))
            for place in places:
                out[place] = error
    done = [one for one in out if isinstance(one, Answer)]
    metrics.prompt_tokens.inc(sum(len(jobs[place].prompt) for place in waiting))
    metrics.new_tokens.inc(sum(len(one.ids) for one in done))
    return out


def _joined(prompt: Answer, completion: Answer) -> Answer:
    """The scores of a prompt with its completion; either may be empty."""
    completion.prompt_logprobs = completion.prompt_logprobs or prompt.prompt_logprobs
    completion.prompt_top = completion.prompt_top or prompt.prompt_top
    return completion


def _score(generator: Generator, jobs: Sequence[Job], metrics: Metrics) -> list[Answer]:
    most = max(job.top_logprobs for job in jobs)
    scores = generator.score([job.prompt for job in jobs], top_logprobs=most)
    return [
        Answer(
            prompt_logprobs=score.logprobs,
            prompt_top=[None, *(_likeliest(top, job.top_logprobs) for top in score.top_logprobs[1:])]
            if most
            else [None, *({} for _ in score.logprobs[1:])],
        )
        for job, score in zip(jobs, scores, strict=True)
    ]


def _decode(generator: Generator, jobs: Sequence[Job], metrics: Metrics) -> list[Answer]:
    last: dict[int, float] = {}

    def heard(number: int, done: Completion) -> None:
        job, now = jobs[number], time.monotonic()
        if number in last:
            metrics.inter_token.observe(now - last[number])
        else:
            metrics.first_token.observe(now - job.asked)
        last[number] = now
        if job.heard is not None and not job.gone.is_set():
            tops = _likeliest(done.top_logprobs[-1], job.top_logprobs) if done.top_logprobs else {}
            job.heard(done.token_ids[-1], done.logprobs[-1], tops)

    most = max(job.top_logprobs for job in jobs)
    completions = generator.generate(
        [job.prompt for job in jobs],
        [job.max_tokens for job in jobs],
        temperature=jobs[0].temperature,
        top_p=jobs[0].top_p,
        stop=jobs[0].stop,
        seed=[job.seed for job in jobs],
        top_logprobs=most,
        wanted=lambda number: not jobs[number].gone.is_set(),
        heard=heard,
    )
    return [
        Answer(
            ids=done.token_ids,
            text=done.text,
            finish_reason=done.finish_reason,
            logprobs=done.logprobs,
            top=[_likeliest(top, job.top_logprobs) for top in done.top_logprobs or [{}] * len(done.token_ids)],
        )
        for job, done in zip(jobs, completions, strict=True)
    ]


def _likeliest(top: dict[int, float] | None, number: int) -> dict[int, float]:
    """The first `number` entries, which are the likeliest."""
    return dict(list((top or {}).items())[:number])
