"""Which token comes next: the distributions that the parameters stand for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kit19_ray.lm.sampling import SamplingParams, adjust, draw, random_source

LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
DRAWS = 8000


def shares(**fields: Any) -> torch.Tensor:
    params, source = SamplingParams(temperature=fields.pop("temperature", 1.0), **fields), random_source(0)
    tokens = [draw(LOGITS, params, source) for _ in range(DRAWS)]
    return torch.bincount(torch.tensor(tokens), minlength=4) / DRAWS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_k": 3}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        ({"min_p": 0.25}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        ({"min_p": 1.0}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"temperature": 0.05}, [1, 0, 0, 0]),
        ({"temperature": 2.0}, [0.379, 0.294, 0.208, 0.120]),
    ],
)
def test_tokens_follow_the_distribution(fields: dict[str, Any], expected: list[float]) -> None:
    assert shares(**fields).tolist() == pytest.approx(expected, abs=0.03)


def test_top_p_looks_beyond_the_likeliest_where_it_must() -> None:
    flat, source = torch.zeros(5000), random_source(1)
    tokens = [draw(flat, SamplingParams(temperature=1.0, top_p=0.9), source) for _ in range(400)]
    assert len(set(tokens)) > 300, "a flat distribution is not cut to the first few hundred"


def test_a_seed_repeats_itself() -> None:
    params = SamplingParams(temperature=1.0, top_p=0.9)
    first, again = random_source(7), random_source(7)
    assert [draw(LOGITS, params, first) for _ in range(50)] == [draw(LOGITS, params, again) for _ in range(50)]


def test_penalties_and_biases() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0])
    before = logits.clone()
    penal = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    assert adjust(logits, penal, [3], [0, 0, 1]).tolist() == pytest.approx([1.0, -1.75, 0.5, 0.0])
    repeated = SamplingParams(repetition_penalty=2.0)
    assert adjust(logits, repeated, [0], [1]).tolist() == pytest.approx([1.0, -2.0, 0.5, 0.0])
    assert adjust(logits, SamplingParams(logit_bias={3: 5.0}), [], []).tolist() == pytest.approx([2, -1, 0.5, 5.0])
    assert torch.equal(logits, before), "what is reported stays the model's own"
    assert not SamplingParams(temperature=1.0, top_p=0.5).changes_logits and penal.changes_logits
