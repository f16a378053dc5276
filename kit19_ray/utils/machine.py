"""What this process may use of its machine: a container's limits count, not what the kernel has."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# Limit and use, of cgroup v2 and v1, as a container sees its own group.
_FILES = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
# Microseconds of CPU time and of what period.
_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


def cpus() -> int:
    """CPUs that this process may use: those it may run on, and at most as many as its container's quota pays for.

    Whole ones count, as Ray's do: 2.5 CPUs are 2. Half a CPU is one, where Ray alone would count none.
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    texts = ([_text(name) for name in names] for names in _QUOTAS)
    quotas = [quota for found in texts if (quota := cpu_quota(" ".join(found))) is not None]
    return max(1, min([mine, *map(int, quotas)]))


def cpu_quota(text: str) -> float | None:
    """CPUs that a quota pays for; None where there is none.

    Args:
        text: microseconds of quota and period: cgroup v2's cpu.max (`200000 100000`, `max 100000`), or v1's
            cpu.cfs_quota_us and cpu.cfs_period_us (-1: no quota) with a space between.
    """
    parts = text.split()
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1])


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


def _text(name: str) -> str:
    try:
        return (_CGROUP / name).read_text()
    except OSError:  # the other version of cgroups
        return ""
