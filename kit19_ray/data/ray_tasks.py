"""Ray tasks of a build: each says its name and what memory it needs, ends after a few tries, and is heard of.

`stream` is for rows that flow (Ray Data: back-pressure, one operator feeding the next), `run` for work whose unit is a
range of a hash: it starts where its inputs are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from kit19_ray.errors import DataError
from kit19_ray.redaction import first_line
from kit19_ray.utils import console
from kit19_ray.utils.json_types import Json

MIB = 1 << 20
_ALIVE = 4  # tasks a CPU that are submitted at a time
_here: ContextVar[bool] = ContextVar("in_process", default=False)


def largest_node() -> int:
    """Bytes that a task may ask for: what the largest node of the cluster has for tasks."""
    import ray

    nodes = cast("list[Json]", ray.nodes())  # type: ignore[no-untyped-call]  # Ray is untyped
    return max((int(node["Resources"].get("memory", 0)) for node in nodes if node["Alive"]), default=0)


def num_cpus() -> int:
    """CPUs of the cluster."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]  # Ray is untyped


def asked(memory: int) -> int:
    """`memory`, or all there is: a task that asks for more than any node has would wait for ever."""
    return max(1, min(memory, largest_node()))


@contextmanager
def in_process() -> Iterator[None]:
    """Within the block `run` starts no Ray task but works here, one item after the other: for what is small."""
    token = _here.set(True)
    try:
        yield
    finally:
        _here.reset(token)


@contextmanager
def named_failures(step: str) -> Iterator[None]:
    """Turns the ways in which Ray gives a task up into one message with the step's name."""
    from ray import exceptions

    try:
        yield
    except exceptions.OutOfMemoryError as error:
        raise DataError(
            f"the data stage ran out of memory in its step {step!r}, which was tried again in vain",
            hint="give the nodes more memory, or run fewer tasks at a time with data.cpus\n" + first_line(error),
        ) from error
    except (exceptions.WorkerCrashedError, exceptions.NodeDiedError) as error:
        raise DataError(
            f"a worker of the data stage's step {step!r} died each time it was tried",
            hint="the kernel's log says whether it ran out of memory\n" + first_line(error),
        ) from error
    except exceptions.RayTaskError as error:
        # Our own errors pass as they are, so that the command line tells them as one message.
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise


def run(step: str, work: Callable[..., Any], items: Sequence[tuple[str, Any]], shared: Any, memory: int) -> list[Any]:
    """Runs `work(shared, item)` as a Ray task for each item; the results in the items' order.

    Args:
        step: what is done, for names and messages.
        items: (name of what it is done to, argument).
        shared: the first argument of every call, sent once to each node.
        memory: bytes a task may need at its peak.
    """
    if _here.get():
        return [work(shared, item) for _, item in items]
    import ray

    if not items:
        return []
    remote = ray.remote(work)
    options = {"num_cpus": 1, "memory": asked(memory), "max_retries": 3}
    context = ray.put(shared)
    results: list[Any] = [None] * len(items)
    running: dict[Any, int] = {}
    most = _ALIVE * num_cpus()
    waiting = iter(enumerate(items))
    try:
        with console.progress(f"data: {step}", len(items)) as advance:
            while True:
                while len(running) < most and (following := next(waiting, None)) is not None:
                    number, (name, item) = following
                    running[remote.options(name=f"data: {step} {name}", **options).remote(context, item)] = number
                if not running:
                    return results
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                number = running.pop(done)
                with named_failures(f"{step} {items[number][0]}"):
                    results[number] = ray.get(done)
                advance()
    finally:
        for reference in running:
            ray.cancel(reference, force=False)
