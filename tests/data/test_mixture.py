"""Quotas by task, pattern and category; weights and their total."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kit19_ray.config.schema import DataConfig
from kit19_ray.data import mixture
from kit19_ray.errors import DataError

CATEGORIES = {
    "kobest_boolq": "boolean_qa",
    "kobest_copa": "natural_language_inference",
    "kornli": "natural_language_inference",
    "nsmc": "sentiment_analysis",
}


def quotas(**data: object) -> dict[str, int]:
    return mixture.quotas(DataConfig.model_validate(data), CATEGORIES)


def test_the_narrowest_key_counts() -> None:
    found = quotas(quota=7, quotas={"kobest_copa": 1, "kobest_*": 2, "natural_language_inference": 3})
    assert found == {"kobest_boolq": 2, "kobest_copa": 1, "kornli": 3, "nsmc": 7}


def test_weights_share_out_the_total() -> None:
    assert quotas(weights={"nsmc": 2, "kobest_*": 0.5}, total=100) == {
        "kobest_boolq": 13,
        "kobest_copa": 12,
        "kornli": 25,
        "nsmc": 50,
    }
    assert sum(quotas(weights={"nsmc": 3}, quota=10).values()) == 40
    assert quotas(weights={"nsmc": 0}, total=9)["nsmc"] == 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"quotas": {"nsmcc": 3}}, "data.quotas: 'nsmcc' is no task of this build.*did you mean 'nsmc'"),
        ({"quotas": {"klue_*": 3}}, r"data.quotas: 'klue_\*' is no task"),
        ({"quotas": {"k*": 3, "kor*": 4}}, r"data.quotas: k\*: 3 and kor\*: 4 both fit task 'kornli'"),
        ({"weights": {"*": 0}}, "data.weights: every task has weight 0"),
    ],
)
def test_what_fits_no_task_or_two_is_refused(data: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        quotas(**data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"weights": {"nsmc": 1}, "quotas": {"nsmc": 1}}, "`weights` and `quotas` exclude each other"),
        ({"total": 3}, "total=3 is shared out by `weights`, which are not set"),
        ({"weights": {"nsmc": -1}}, "weights.nsmc=-1 must be 0 or more"),
        ({"quotas": {"nsmc": 0}}, "quotas.nsmc=0 must be 1 or more"),
    ],
)
def test_settings_that_contradict_each_other(data: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataConfig.model_validate(data)


@given(
    st.dictionaries(st.text("abcdef", min_size=1), st.floats(0, 1e6), min_size=1).filter(lambda w: sum(w.values()) > 0),
    st.integers(1, 10**6),
)
def test_shares_add_up_and_are_near_the_ideal(weights: dict[str, float], total: int) -> None:
    found = mixture.shares(weights, total)
    assert sum(found.values()) == total
    summed = sum(weights.values())
    for name, share in found.items():
        assert abs(share - total * weights[name] / summed) < 1 + 1e-6
    assert found == mixture.shares(dict(reversed(weights.items())), total)


@given(st.integers(1, 10**6))
def test_a_pool_holds_its_quota_and_no_more_than_twice_of_it(quota: int) -> None:
    size = mixture.pool_size(quota)
    assert size >= quota
    assert size == 1250 or size < 2 * quota
    assert mixture.pool_size(size) == size
