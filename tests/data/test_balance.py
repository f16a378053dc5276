from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.artifacts.data_manifests import ClassCounts
from kit19_ray.config import loading
from kit19_ray.data import balance
from kit19_ray.data.balance import Balance, Shares
from kit19_ray.errors import DataError, UserError
from kit19_ray.tasks.task import load_tasks

TASKS = load_tasks(["hatescore", "nsmc", "kowiki_qa"])


def of(*words: str) -> dict[str, Balance]:
    return balance.of_tasks(loading.load(None, ["root=unused", *words]).data, TASKS)


def counts(**records: int) -> list[ClassCounts]:
    """Each record fits 10 templates."""
    return [{"label": k, "records": n, "examples": 10 * n, "weight": n} for k, n in records.items()]


sized = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12)), min_size=1, max_size=4)


@given(sized)
def test_every_example_has_a_rank_of_its_own(classes: list[tuple[int, int]]) -> None:
    shares = Shares(*(tuple(part) for part in zip(*classes, strict=True)))
    ranks = [[shares.rank(cls, n) for n in range(size)] for cls, size in enumerate(shares.sizes)]
    assert sorted(rank for found in ranks for rank in found) == list(range(sum(shares.sizes)))
    assert all(found == sorted(found) for found in ranks)
    for quota in range(sum(shares.sizes) + 2):
        assert shares.taken(quota) == tuple(sum(rank < quota for rank in found) for found in ranks)


def test_even_takes_turns_and_who_has_no_more_is_filled_up() -> None:
    shares = Shares((1, 1, 1), (9, 9, 2))
    order = sorted((shares.rank(cls, n), "ABC"[cls]) for cls, size in enumerate(shares.sizes) for n in range(size))
    assert "".join(name for _, name in order) == "ABCABC" + "AB" * 7
    even = Balance("even", ("hate", "abuse", "clean"))
    found = counts(hate=80, abuse=15, clean=900)
    for entry in found:
        entry["weight"] = 1
    given_ = balance.given(even, found, 600)
    assert {label: c["examples"] for label, c in given_.items()} == {"hate": 225, "abuse": 150, "clean": 225}
    assert balance.short(even, given_) == (
        "abuse gives 150 of 200 examples, all that its 15 records have; the other classes fill the quota"
    )
    assert balance.short(even, balance.given(even, found, 300)) == ""


def test_cap_holds_a_class_to_its_share_and_leaves_the_others_as_they_are() -> None:
    capped = Balance("cap", ("hate", "abuse", "clean"), (0.5, 0.5, 0.5))
    taken = balance.given(capped, counts(hate=80, abuse=20, clean=900), 400)
    assert {label: c["examples"] for label, c in taken.items()} == {"hate": 160, "abuse": 40, "clean": 200}
    few = balance.given(capped, counts(hate=8, abuse=2, clean=900), 400)
    assert sum(c["examples"] for c in few.values()) == 300  # short of the quota, as the cap says


def test_the_config_chooses_per_task_and_class() -> None:
    assert set(of().values()) == {balance.SOURCE}
    even = of("data.balance=even", "data.balances={nsmc: source}")
    assert (even["hatescore"].mode, even["nsmc"].mode, even["kowiki_qa"].mode) == ("even", "source", "source")
    assert of("data.balances={hate_speech: cap}", "data.cap=0.4")["hatescore"].caps == (0.4, 0.4, 0.4)
    assert of("data.caps={hatescore: {clean: 0.4}}")["hatescore"] == Balance(
        "cap", ("hate", "abuse", "clean"), (1.0, 1.0, 0.4)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data.balances={kowiki_qa: even}", "kowiki_qa has no classes"),
        ("data.balances={nsmcc: even}", "'nsmcc' is no task of this build.*nsmc"),
        ("data.caps={nsm: {positive: 0.5}}", "data.caps: 'nsm' is no task of this build"),
        ("data.caps={hatescore: {cleen: 0.5}}", "hatescore has no class 'cleen'.*clean.*hate, abuse, clean"),
        ("data.caps={hatescore: {clean: 1.5}}", r"caps.hatescore.clean=1.5 must be above 0 and at most 1"),
        ("data.balance=evn", "even"),
    ],
)
def test_a_wrong_key_is_named(words: str, message: str) -> None:
    with pytest.raises((DataError, UserError), match=message):
        of(words)
