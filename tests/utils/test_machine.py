"""Limits of a container, of both versions of cgroups, and of the CPUs a process may use."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from kit19_ray.utils import machine


@pytest.mark.parametrize(
    ("files", "most", "free"),
    [
        ({"memory.max": "1000000", "memory.current": "400000"}, 1_000_000, 600_000),
        ({"memory/memory.limit_in_bytes": "1000000", "memory/memory.usage_in_bytes": "1000001"}, 1_000_000, 0),
        ({"memory.max": "max", "memory.current": "400000"}, None, None),
        ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"}, None, None),
        ({}, None, None),
    ],
)
def test_a_containers_limit_counts(
    files: dict[str, str], most: int | None, free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.memory() == (whole if most is None else most)
    if free is None:
        assert 0 < machine.free_memory() <= whole
    else:
        assert machine.free_memory() == free


def test_cpus_are_those_this_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert machine.cpus() == 1


@pytest.mark.parametrize(
    ("files", "counted"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "12800000 100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "200000"}, 64),
        ({"cpu.max": "what"}, 64),
        ({}, 64),
    ],
)
def test_a_containers_cpu_quota_counts(
    files: dict[str, str], counted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert machine.cpus() == counted
    rays = _ray_counts(tmp_path)  # None: the kernel's
    assert counted == (max(1, int(rays)) if rays and rays < 64 else 64)


def _ray_counts(folder: Path) -> float | None:
    """CPUs of a container as Ray counts them itself."""
    from ray._private.utils import _get_docker_cpus

    v1 = [str(folder / "cpu" / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves cpu.max open
        found: float | None = _get_docker_cpus(*v1, str(folder / "none"), str(folder / "cpu.max"))
    return found
