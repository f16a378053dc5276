"""What this process may use of its machine: a container's limits count, not what the kernel has."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# Limit and use, of cgroup v2 and v1, as a container sees its own group.
_FILES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory that this process may use at most."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *(limit for limit, _ in _limits())])


def free_memory() -> int:
    """Bytes of memory that are free to this process."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([available, *(max(0, limit - used) for limit, used in _limits())])


def _limits() -> list[tuple[int, int]]:
    found = []
    for limit, used in _FILES:
        try:
            found.append((int((_CGROUP / limit).read_text()), int((_CGROUP / used).read_text())))
        except (OSError, ValueError):  # the other version of cgroups, or no limit: `max`
            continue
    return found
