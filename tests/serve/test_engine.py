"""Jobs to answers, without Ray: company does not matter, and one failed batch is not the others'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit19_ray.lm.generator import Generator
from kit19_ray.serve import engine
from kit19_ray.serve.batches import Job
from kit19_ray.serve.engine import Answer
from kit19_ray.serve.metrics import Metrics

PROMPTS = ["이 영화는 정말", "대한민국의 수도는 서울이고 가장 큰", "예", "두 문장의 뜻이"]


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return Generator.load(str(tiny_model))


def jobs(generator: Generator, **fields: Any) -> list[Job]:
    return [Job(tuple(generator.encode(p)), 4 + 3 * n, **fields) for n, p in enumerate(PROMPTS)]


def answers(generator: Generator, wanted: list[Job], metrics: Metrics | None = None) -> list[Answer]:
    done = engine.answer(generator, wanted, metrics or Metrics("r"))
    assert all(isinstance(one, Answer) for one in done), done
    return [one for one in done if isinstance(one, Answer)]


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.8, "top_p": 0.9, "seed": 11}])
def test_an_answer_is_the_same_alone_and_in_company(generator: Generator, fields: dict[str, Any]) -> None:
    wanted = jobs(generator, score_prompt=True, top_logprobs=2, **fields)
    company = answers(generator, wanted)
    for job, answer in zip(wanted, company):
        (alone,) = answers(generator, [job])
        assert (answer.ids, answer.text, answer.finish_reason) == (alone.ids, alone.text, alone.finish_reason)
        # Rows of another length are padded, which changes the order of float32 sums.
        assert answer.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
        assert answer.prompt_logprobs == pytest.approx(alone.prompt_logprobs, abs=1e-5)
        assert len(answer.prompt_logprobs) == len(job.prompt) and len(answer.logprobs) == len(answer.ids)


def test_each_job_gets_as_many_top_tokens_as_it_asked_for(generator: Generator) -> None:
    prompt = tuple(generator.encode(PROMPTS[0]))
    wanted = [Job(prompt, 3, top_logprobs=n, score_prompt=True) for n in (0, 1, 4)]
    for job, answer in zip(wanted, answers(generator, wanted)):
        assert {len(top) for top in answer.top} == {job.top_logprobs}
        assert answer.prompt_top[0] is None
        assert {len(top or {}) for top in answer.prompt_top[1:]} == {job.top_logprobs}


def test_scoring_generates_nothing(generator: Generator) -> None:
    metrics = Metrics("r")
    (answer,) = answers(generator, [Job((5, 6, 7), 0, score_prompt=True)], metrics)
    assert answer.ids == [] and len(answer.prompt_logprobs) == 3
    assert "kit19_batches_total" in metrics.text().decode()
    assert 'kit19_batches_total{replica="r"} 1.0' in metrics.text().decode()


def test_a_job_nobody_waits_for_is_not_decoded(generator: Generator) -> None:
    wanted = jobs(generator)
    wanted[1].gone.set()
    metrics = Metrics("r")
    done = answers(generator, wanted, metrics)
    assert done[1].ids == [] and all(one.ids for n, one in enumerate(done) if n != 1)


def test_a_job_given_up_while_it_is_decoded_ends_early(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = jobs(generator)[3:]
    steps = 0
    forward = generator.model.forward

    def count(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 2:
            job.gone.set()
        return forward(*args, **kwargs)

    monkeypatch.setattr(generator.model, "forward", count)
    answers(generator, [job])
    assert steps == 2 < job.max_tokens


def test_a_failed_batch_leaves_the_others_answers(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = generator.generate

    def fail_when_hot(*args: Any, temperature: float, **kwargs: Any) -> Any:
        if temperature > 0:
            raise RuntimeError("out of memory")
        return generate(*args, temperature=temperature, **kwargs)

    monkeypatch.setattr(generator, "generate", fail_when_hot)
    prompt = tuple(generator.encode(PROMPTS[0]))
    done = engine.answer(generator, [Job(prompt, 3), Job(prompt, 3, temperature=1.0)], Metrics("r"))
    assert isinstance(done[0], Answer) and done[0].ids
    assert isinstance(done[1], RuntimeError)
