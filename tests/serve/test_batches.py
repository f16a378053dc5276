"""Which prompts go to the model together."""

from __future__ import annotations

from typing import Any

from kit19_ray.serve.batches import Job, together


def job(max_tokens: int = 8, **fields: Any) -> Job:
    return Job((1, 2), max_tokens, **fields)


def test_greedy_jobs_go_together_whatever_length_seed_and_top_p() -> None:
    assert together([job(seed=1), job(200, seed=2, top_p=0.5), job()]) == [[0, 1, 2]]


def test_other_stops_or_temperatures_are_decoded_apart() -> None:
    jobs = [job(stop=("가",)), job(), job(temperature=0.5), job(temperature=0.7), job(temperature=0.5, seed=1)]
    assert together(jobs) == [[0], [1], [2, 4], [3]]


def test_what_wants_no_token_is_in_no_batch() -> None:
    assert together([job(0), job(), job(0)]) == [[1]]


def test_every_job_is_in_one_group() -> None:
    jobs = [job(1 + n % 5, temperature=n % 3 / 2, top_p=0.5 + n % 2 / 2) for n in range(60)]
    assert sorted(place for group in together(jobs) for place in group) == list(range(60))
