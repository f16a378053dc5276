"""The connection to Ray: the cluster the environment names, or one on this machine for the length of a command."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Set before ray is imported anywhere: quiet defaults a user's own environment may override.
_QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": "3",  # Ray's own default tries a task that runs out of memory again for ever
    "TOKENIZERS_PARALLELISM": "false",
    "DS_ACCELERATOR_LOG_LEVEL": "ERROR",
}


def environment() -> None:
    """Fills in the quiet defaults; call it before `import ray`."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def connected(cpus: int | None = None, verbose: bool = False) -> Iterator[None]:
    """A Ray connection for the block: a running one is used as it is, RAY_ADDRESS is honoured, else a local one.

    Args:
        cpus: CPUs of a local cluster; None means all of the machine's. Without effect on an existing cluster.
        verbose: let the workers' output through to this terminal.
    """
    environment()
    import ray

    if ray.is_initialized():
        yield
        return
    remote = bool(os.environ.get("RAY_ADDRESS"))
    ray.init(
        num_cpus=None if remote else cpus,
        log_to_driver=verbose,
        logging_level=logging.INFO if verbose else logging.ERROR,
        # The dashboard stays on: without it Train's cleaner logs a failure twice a second (Ray 2.60).
    )
    try:
        yield
    finally:
        ray.shutdown()


def prepare_ray_data() -> None:
    """Ray Data's bars on a terminal, none elsewhere; and our own errors as they are, not as text in Ray's."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = sys.stderr.isatty()
    context.raise_original_map_exception = True
    # Our datasets have one operator, whose rows say which files it wrote: there is no downstream to keep half of a
    # small node's CPUs for, as Ray 2.60 does.
    context.op_resource_reservation_enabled = False
