"""Which prompts go to the model together."""

from __future__ import annotations

from kit19_ray.serve.batches import Job, Sampling, compatible


def job(max_tokens: int = 8, **fields: object) -> Job:
    return Job((1, 2), Sampling(max_tokens, **fields))  # type: ignore[arg-type]


def test_greedy_jobs_go_together_whatever_seed_and_top_p() -> None:
    assert compatible([job(seed=1), job(seed=2, top_p=0.5), job()]) == [[0, 1, 2]]


def test_a_short_answer_does_not_wait_for_a_long_one() -> None:
    assert compatible([job(8), job(256), job(5), job(9), job(200)]) == [[0, 2], [1, 4], [3]]


def test_other_stops_or_temperatures_are_decoded_apart() -> None:
    jobs = [job(stop=("가",)), job(), job(temperature=0.5), job(temperature=0.7), job(temperature=0.5)]
    assert compatible(jobs) == [[0], [1], [2, 4], [3]]


def test_a_seeded_sample_is_decoded_alone() -> None:
    assert compatible([job(temperature=1.0, seed=3), job(temperature=1.0, seed=3)]) == [[0], [1]]


def test_scoring_goes_together() -> None:
    assert compatible([job(0), job(), job(0, temperature=1.0)]) == [[0, 2], [1]]


def test_every_job_is_in_one_group() -> None:
    jobs = [job(n % 5, temperature=n % 3 / 2, seed=n if n % 2 else None) for n in range(60)]
    assert sorted(place for group in compatible(jobs) for place in group) == list(range(60))
