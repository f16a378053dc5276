"""What asks a running training to save, or to save and stop: the user, the driver's end, a node that will go.

The driver and `kit19 checkpoint` are other processes, perhaps on other machines, so they leave a request in the run's
prefix; rank 0 looks for it. Each rank looks whether Ray has said that a node of the run is to be taken away.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from kit19_ray.artifacts.run_request import clear, pending, write
from kit19_ray.errors import StorageError
from kit19_ray.train.flags import DRAINING, SAVE, STOP

_POLL_SECONDS = {"file": 0.5, "s3": 5.0}


@contextlib.contextmanager
def stopping_in_good_order(out: str) -> Iterator[None]:
    """For the block, the first SIGTERM asks the run to save and stop; a second one ends this process as usual.

    That is what `kit19 stop`, `ray job stop`, a suspended resource and an evicted pod send the driver.
    """
    clear(out)  # what was meant for an earlier start
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)

    def asked(*_: object) -> None:
        signal.signal(signal.SIGTERM, before)
        # In a thread: a handler runs between any two instructions, also while a lock of the store's client is held.
        threading.Thread(target=write, args=(out, "stop"), daemon=True).start()

    signal.signal(signal.SIGTERM, asked)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def node_is_draining() -> bool:
    """Whether Ray Train has told this worker that a node of the run is about to be taken away.

    `ray.train.get_preemption_info` says it too, but as a barrier over all workers.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    try:
        return get_train_context().preemption_context.preemption_info is not None
    except RuntimeError:  # no worker of Ray Train's, so nobody takes its node away
        return False


class Interruptions:
    """A thread that looks for requests and notices; `flags` is what it has found."""

    def __init__(self, out: str, rank: int) -> None:
        self._out, self._rank = out, rank
        self._stop = threading.Event()
        self._flags = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, name="interruptions", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._stop.set()

    @property
    def flags(self) -> int:
        """SAVE, STOP and DRAINING, as far as they are asked for."""
        with self._lock:
            return self._flags

    def answered(self) -> None:
        """The checkpoint that was asked for is on its way."""
        with self._lock:
            self._flags &= ~SAVE
        if self._rank == 0:
            with contextlib.suppress(StorageError):  # it is asked for again at most once
                clear(self._out)

    def _look(self) -> None:
        drained = False
        while not self._stop.wait(_POLL_SECONDS[self._out.split("://")[0]]):
            found = 0
            if self._rank == 0:
                with contextlib.suppress(StorageError, ValueError):  # the store is out: nobody can ask either
                    if (request := pending(self._out)) is not None:
                        found |= SAVE | (STOP if request["ask"] == "stop" else 0)
            if node_is_draining():
                found |= DRAINING | (0 if drained else SAVE)
                drained = True
            with self._lock:
                self._flags |= found
