"""One rank's error is every rank's, at once; flags are everybody's together."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
import torch.distributed as dist

from kit19_ray.errors import StorageError, TrainError
from kit19_ray.train import agreement
from kit19_ray.train.agreement import AgreedError, Agreement
from kit19_ray.train.flags import FAILED, SAVE, STOP
from tests.train.ranks import run_ranks

pytestmark = pytest.mark.ranks


def ended(wrong: int, kind: str) -> tuple[Any, ...]:
    """A phase in which rank `wrong` fails; what each rank is told."""
    meeting = Agreement("127.0.0.1", 30)
    with meeting.phase("a phase before"):
        pass
    begun = time.monotonic()
    try:
        with meeting.phase("opening"):
            if meeting.rank == wrong:
                raise StorageError("gone", hint="look") if kind == "user" else KeyError("ours")
    except AgreedError as error:
        return error.rank, error.phase, type(error.error).__name__, str(error.error), error.everywhere, begun
    return ()


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_all_ranks_raise_the_failed_ones_error(wrong: int) -> None:
    for found in run_ranks(3, ended, wrong, "user"):
        assert found[:5] == (wrong, "opening", "StorageError", "gone\nlook", True)


def test_an_error_of_ours_comes_with_its_traceback() -> None:
    for found in run_ranks(2, ended, 1, "ours"):
        assert found[2] == "RuntimeError"
        assert "Traceback" in found[3] and "KeyError: 'ours'" in found[3]


def stuck() -> str:
    """Rank 1 fails before a collective that rank 0 waits in."""
    agreement._GRACE_SECONDS = 1.0
    meeting = Agreement("127.0.0.1", 20)
    begun = time.monotonic()
    try:
        with meeting.phase("loading"):
            if meeting.rank == 1:
                raise TrainError("no such model here")
            dist.all_reduce(torch.zeros(1))
    except AgreedError as error:
        return f"{error.rank} {error.everywhere} {error.error} {time.monotonic() - begun < 15}"
    except RuntimeError as error:  # what gloo says to rank 0 when rank 1 is gone
        return type(error).__name__
    return "nothing"


def test_a_rank_that_others_cannot_hear_raises_for_itself() -> None:
    """In a cluster Ray ends the others then; here gloo tells rank 0 that rank 1 is gone."""
    assert run_ranks(2, stuck)[1] == "1 False no such model here True"


def late() -> str:
    meeting = Agreement("127.0.0.1", 1)
    try:
        with meeting.phase("loading"):
            time.sleep(4 if meeting.rank else 0)
    except TimeoutError as error:
        return str(error)
    except dist.DistNetworkError:  # rank 0, and the store in it, is gone
        return ""
    return ""


def test_a_rank_that_does_not_come_is_named() -> None:
    assert run_ranks(2, late)[0] == "loading: workers [1] did not come to its end within 1 s"


def together() -> tuple[int, int, Any, Any]:
    meeting = Agreement("127.0.0.1", 30)
    mine = [SAVE, FAILED | STOP][meeting.rank]
    return meeting.flags(mine), meeting.flags(0), meeting.broadcast(meeting.rank), meeting.gather(meeting.rank)


def test_flags_are_everybodys() -> None:
    assert run_ranks(2, together) == [(SAVE | FAILED | STOP, 0, 0, [0, 1])] * 2
