"""Blocking calls of the Kubernetes client and of storage, away from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_THREADS = 8


class Threads:
    """A pool of threads that an event loop waits for."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="cluster")

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """A blocking call in a thread, which sees the context variables of who calls."""
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(function, *arguments))
