"""What the workers agree on: that a phase went well everywhere, and at each step whether to save or to stop.

A phase that one rank can fail alone (a model folder that is not on its node, a store that does not answer it) ends in
`Agreement.phase`: the ranks look at each other's outcome in a small key-value store, so one error ends all of them
within seconds, with that rank's message. A rank that sits in a collective the failed one will never join cannot look;
the failed one waits a little for it, then raises, and Ray ends the rest.
"""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from kit19_ray.errors import UserError
from kit19_ray.redaction import redacted
from kit19_ray.train.flags import BITS

TCPStore: Any = dist.TCPStore  # type: ignore[attr-defined]  # public, and not in torch's own list

_GRACE_SECONDS = 20.0  # a failed rank waits so long for those that have not come to the end of the phase
_POLL_SECONDS = 0.02


class AgreedError(Exception):
    """An error that every rank knows of; `error` is the one of the lowest rank that had one.

    Args:
        everywhere: whether all ranks raise this: then the workers may end without being started again.
    """

    def __init__(self, rank: int, phase: str, error: Exception, everywhere: bool) -> None:
        super().__init__(f"worker {rank}, {phase}: {error}")
        self.rank, self.phase, self.error, self.everywhere = rank, phase, error, everywhere

    def __reduce__(self) -> tuple[Any, ...]:
        return AgreedError, (self.rank, self.phase, self.error, self.everywhere)


class Agreement:
    """The ranks' meeting place; every rank makes one, at the same point.

    Args:
        address: of this node.
        seconds: a phase that a rank needs longer for has failed.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._seconds, self._phases = seconds, 0
        timeout = timedelta(seconds=seconds)
        self._group = dist.new_group(backend="gloo", timeout=timeout)
        store = None
        if self.rank == 0:
            store = TCPStore(address, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        host, port = self.broadcast((address, store.port if store else 0))
        self._store = store or TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)

    @contextmanager
    def phase(self, name: str, seconds: float | None = None) -> Iterator[None]:
        """The block, which all ranks run; its end is left by all with success, or by all with the same error.

        Args:
            seconds: that the last rank may come after the first, where it is not the usual time.

        Raises:
            AgreedError: a rank failed, or did not come to the end in time.
        """
        self._phases += 1
        error: Exception | None = None
        try:
            yield
        except AgreedError:
            raise
        except Exception as caught:  # noqa: BLE001 - raised again at every rank
            error = caught
        self._meet(f"{self._phases}", name, error, seconds or self._seconds)

    def _meet(self, number: str, name: str, error: Exception | None, seconds: float) -> None:
        self._store.set(f"{number}/{self.rank}", "" if error is None else _portable(error).hex())
        if error is not None:
            self._store.set(f"{number}/failed", "1")
        begun = time.monotonic()
        while True:
            there = [rank for rank in range(self.world_size) if self._store.check([f"{number}/{rank}"])]
            everyone = len(there) == self.world_size
            failed = self._store.check([f"{number}/failed"])
            waited = time.monotonic() - begun
            if everyone or (failed and waited > _GRACE_SECONDS):
                break
            if waited > seconds:
                late = sorted(set(range(self.world_size)) - set(there))
                raise TimeoutError(f"{name}: workers {late} did not come to its end within {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        texts = {rank: self._store.get(f"{number}/{rank}").decode() for rank in there}
        self._see_off(number)
        for rank, text in texts.items():
            if text:  # another rank of this run wrote it
                raise AgreedError(rank, name, pickle.loads(bytes.fromhex(text)), everyone) from error

    def _see_off(self, number: str) -> None:
        """Rank 0, in whose process the store is, stays until the others have read: it may end after this phase."""
        self._store.add(f"{number}/seen", 1)
        until = time.monotonic() + _GRACE_SECONDS
        while self.rank == 0 and self._store.add(f"{number}/seen", 0) < self.world_size and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def flags(self, mine: int) -> int:
        """Every rank's flags together; all ranks must call it, and are in step afterwards."""
        bits = torch.tensor([mine >> bit & 1 for bit in range(BITS)], dtype=torch.uint8)
        dist.all_reduce(bits, op=dist.ReduceOp.MAX, group=self._group)
        return sum(int(value) << bit for bit, value in enumerate(bits.tolist()))

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value at every rank."""
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self._group)
        return held[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, at every rank."""
        held: list[Any] = [None] * self.world_size
        dist.all_gather_object(held, value, group=self._group)
        return held


def _portable(error: Exception) -> bytes:
    """The error as it is where it can be sent, else its traceback in a RuntimeError."""
    if isinstance(error, UserError):
        try:
            return pickle.dumps(error)
        except Exception:  # noqa: BLE001, S110 - its text will do
            pass
    text = redacted("".join(traceback.format_exception(error)))
    return pickle.dumps(RuntimeError(text if len(text) < 20_000 else text[-20_000:]))
