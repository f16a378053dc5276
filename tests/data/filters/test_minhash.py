"""Near duplicates by MinHash: which are found, which are not compared, and that order does not matter."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.data.filters import minhash
from kit19_ray.data.filters.minhash import BANDS, ROWS, BandMates

LONG = (
    "어제 저녁에 동네 뒷산을 천천히 올라가면서 바라본 노을이 참 고왔고 내려오는 길에는 반딧불이도 몇 마리 볼 수 있었다"
)
NEAR = LONG.replace("참", "무척")
OTHER = (
    "도서관 이층 창가 자리에 앉아 두꺼운 소설책을 다 읽고 나니 벌써 밖이 어두워져서 서둘러 가방을 챙겨 집으로 돌아왔다"
)


def candidates(
    texts: list[list[str]], task: list[int], source: list[int], answer: list[int], rank: list[int] | None = None
) -> BandMates:
    return BandMates(
        key=np.zeros(len(texts), np.uint64),
        signatures=np.stack([minhash.signature(t) for t in texts]),
        rank=np.array(rank or list(range(len(texts))), np.int64),
        task=np.array(task, np.int64),
        source=np.array(source, np.int64),
        answer=np.array(answer, np.int64),
    )


def leaving(made: BandMates, threshold: float = 0.8) -> dict[int, int]:
    """What leaves over all bands, each record with the nearest to the front it is near to."""
    found: dict[int, int] = {}
    for band in range(BANDS):
        columns = made.signatures[:, band * ROWS : (band + 1) * ROWS]
        for gone, kept in replace(made, key=minhash.band_keys(columns)).near(threshold).items():
            if gone not in found or made.rank[kept] < made.rank[found[gone]]:
                found[gone] = kept
    return found


def test_of_two_near_texts_the_later_leaves() -> None:
    assert leaving(candidates([[LONG], [OTHER], [NEAR]], [0, 0, 0], [0, 0, 0], [1, 1, 1])) == {2: 0}
    assert leaving(candidates([[LONG], [OTHER], [NEAR]], [0] * 3, [0] * 3, [1] * 3, rank=[2, 1, 0])) == {0: 2}


def test_who_is_compared() -> None:
    texts = [[LONG], [NEAR]]
    assert leaving(candidates(texts, [0, 0], [0, 0], [1, 2])) == {}  # one task, other answers
    assert leaving(candidates(texts, [0, 1], [0, 0], [1, 1])) == {}  # two tasks of one source
    assert leaving(candidates(texts, [0, 1], [0, 1], [1, 2])) == {1: 0}  # two tasks of two sources
    assert leaving(candidates(texts, [0, 0], [0, 0], [1, 1]), threshold=1.0) == {}


def test_every_text_of_a_record_counts_alike() -> None:
    paragraph = " ".join([LONG, OTHER] * 3)
    asked = candidates([[paragraph, LONG], [paragraph, OTHER]], [0, 0], [0, 0], [1, 1])
    assert leaving(asked) == {}
    assert leaving(candidates([[paragraph, LONG], [paragraph, NEAR]], [0, 0], [0, 0], [1, 1])) == {1: 0}


@given(st.randoms(use_true_random=False))
def test_what_leaves_does_not_depend_on_the_order(shuffler: random.Random) -> None:
    texts = [[LONG], [NEAR], [OTHER], [OTHER + " 정말"], [LONG + "."], ["짧은 글"], ["짧은 글"]]
    order = list(range(len(texts)))
    shuffler.shuffle(order)
    plain = leaving(candidates(texts, [0] * 7, [0] * 7, [1] * 7))
    mixed = leaving(candidates([texts[i] for i in order], [0] * 7, [0] * 7, [1] * 7, rank=order))
    assert {order[gone]: order[kept] for gone, kept in mixed.items()} == plain
    assert set(plain) == {1, 3, 4, 6}


def test_a_signature_estimates_the_share_of_common_ngrams() -> None:
    one, other = "가나다라마바사아자차카타파하" * 1, "가나다라마바사아자차카타파호"
    same = (minhash.signature([one]) == minhash.signature([other])).mean()
    assert 0.6 < same <= 1  # 9 of 11 n-grams in common: 0.82
    assert (minhash.signature([LONG]) == minhash.signature([OTHER])).mean() < 0.1


def test_a_bucket_of_boilerplate_costs_no_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many records that meet in a band and are not near: each is compared with the first few that stayed."""
    monkeypatch.setattr(minhash, "MOST", 8)
    rng = np.random.default_rng(19)
    signatures = rng.integers(0, 2**32, (2000, BANDS * ROWS), dtype=np.uint32)
    signatures[1999] = signatures[3]
    signatures[1998] = signatures[1500]  # not among the first: it meets its like in another bucket
    zeros = np.zeros(2000, np.int64)
    made = BandMates(np.zeros(2000, np.uint64), signatures, np.arange(2000), zeros, zeros, zeros)
    assert made.near(0.8) == {1999: 3}


@given(st.lists(st.integers(0, 9), max_size=30))
def test_who_meets_somebody(keys: list[int]) -> None:
    found = minhash.met(np.array(keys, np.uint64))
    assert found.tolist() == [i for i, key in enumerate(keys) if keys.count(key) > 1]


@given(st.integers(0, 5))
def test_signatures_are_the_same_after_storage(num: int) -> None:
    made = [minhash.signature([LONG + "가" * i]) for i in range(num)]
    columns = [pa.chunked_array([column]) for column in minhash.pack(made)]
    assert minhash.unpack(columns).tolist() == [m.tolist() for m in made]
    assert minhash.unpack([column.slice(1) for column in columns]).tolist() == [m.tolist() for m in made[1:]]
